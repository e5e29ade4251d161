from ...common.losses import seesaw as _loss
from .focal_one_to_one import dataloader, dataset, model, optimizer, schedule, train

model.criterion.classification = _loss
train.output_dir = "output/lvis/seesaw_one_to_one"
