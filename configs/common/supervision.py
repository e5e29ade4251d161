"""The hybrid matching schemes with the paper's settings (H-DETR, section 4 and table 14).

Each gives a target six positives more than one-to-one matching does, summed over layers and epochs.
"""

from detectron2.config import LazyCall as L

from hdetr_d2.matching import FrequencyDemand
from hdetr_d2.supervision import HybridBranch, HybridEpoch, HybridLayer, HybridProposals

hybrid_branch = L(HybridBranch)(num_queries=1500, k=6, weight=1.0)
hybrid_epoch = L(HybridEpoch)(k=10, rho=2 / 3)
hybrid_layer = L(HybridLayer)(k=10, num_one2many_layers=4)

# Not of the paper: the encoder's proposals one-to-many, the decoder one-to-one; distinct queries belong to it.
hybrid_proposals = L(HybridProposals)(k=6, weight=1.0)

# ``demand`` of any of them, on datasets whose image_counts are known (configs/common/data/lvis.py)
by_frequency = L(FrequencyDemand)(image_counts="${dataset.image_counts}", power=0.5)
