from ...common.models.relation_detr import model
from ...common.models.small import make_small
from ..schemes.one_to_one import dataloader, dataset, optimizer, schedule, train

make_small(model)
model.supervision.num_queries = 120
train.output_dir = "output/family/relation_detr"
