from ...common.supervision import hybrid_layer as _scheme
from .one_to_one_all_queries import dataloader, dataset, model, optimizer, schedule, train

model.supervision = _scheme
model.supervision.num_one2many_layers = 2  # of three, as the paper's four of six
train.output_dir = "output/schemes/hybrid_layer"
