from ..common.data.bccd import dataloader, dataset
from ..common.models.h_deformable_detr_small import model
from ..common.optim import scratch_optimizer as optimizer
from ..common.schedule import schedule_scratch_5ep as schedule
from ..common.train import train

# The photographs are 640 x 480; at half of that a CPU trains this in half an hour, and platelets are still 20 pixels.
dataset.short_side = 240
schedule.epochs = 48
schedule.drop_epochs = [36, 44]
train.batch_size = 8
train.eval_period_epochs = 8
train.output_dir = "output/bccd/h_deformable_detr_small"
