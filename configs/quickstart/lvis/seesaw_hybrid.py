from ...common.losses import seesaw as _loss
from .focal_hybrid import dataloader, dataset, model, optimizer, schedule, train

model.criterion.classification = _loss
train.output_dir = "output/lvis/seesaw_hybrid"
