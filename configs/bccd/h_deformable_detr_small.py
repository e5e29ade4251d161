from ..common.data.bccd import dataloader, dataset
from ..common.models.h_deformable_detr_small import model
from ..common.optim import optimizer
from ..common.schedule import schedule
from ..common.train import train

# The photographs are 640 x 480; at half of that a CPU trains this in half an hour, and platelets are still 20 pixels.
dataset.short_side = 240
optimizer.lr = 1e-3
optimizer.params.rules = []  # nothing is pre-trained: backbone and offsets learn as fast as the rest
schedule.epochs = 48
schedule.drop_epochs = [36, 44]
schedule.drop_factor = 0.3
schedule.warmup_iters = 50
train.batch_size = 8
train.eval_period_epochs = 8
train.output_dir = "output/bccd/h_deformable_detr_small"
