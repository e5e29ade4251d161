from ...common.models.group_detr import model
from ...common.models.small import make_small
from ..schemes.one_to_one import dataloader, dataset, optimizer, schedule, train

make_small(model)
model.supervision.num_groups = 4  # as many queries as 40 with 120 of a hybrid branch
train.output_dir = "output/family/group_detr"
