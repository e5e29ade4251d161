"""What an epoch holds; ``dataloader.train.sampling`` is one of these, or None for every image once."""

from detectron2.config import LazyCall as L

from hdetr_d2.data import ClassBalancedSampling, RepeatFactorSampling

repeat_factor = L(RepeatFactorSampling)(threshold=0.001, sqrt=True)  # LVIS, and H-DETR's models on it
class_balanced = L(ClassBalancedSampling)()
