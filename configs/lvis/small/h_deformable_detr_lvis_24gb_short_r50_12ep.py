from ...common.schedule import schedule_12ep as schedule
from .h_deformable_detr_lvis_24gb_r50_24ep import dataloader, dataset, model, optimizer, train

# A quarter of the work for a first try: smaller images, 12 passes over the data, half of the batch and, by linear
# scaling, of the rate. Not published, and not trained by us.
dataset.short_side = 640
optimizer.lr = 1e-4
train.batch_size = 8
train.accumulate = 2
