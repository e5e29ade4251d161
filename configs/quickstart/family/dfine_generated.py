from ...common.models.dfine import model
from ...common.models.small import make_small
from ..schemes.one_to_one import dataloader, dataset, optimizer, schedule, train

make_small(model)
train.output_dir = "output/family/dfine"
