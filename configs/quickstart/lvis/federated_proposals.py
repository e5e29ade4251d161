from ...common.supervision import hybrid_proposals as _scheme
from .federated_one_to_one import dataloader, dataset, model, optimizer, schedule, train

model.supervision = _scheme
model.supervision.k = 5
train.output_dir = "output/lvis/federated_proposals"
