from ..common.data.generated import dataloader, dataset
from ..common.models.h_deformable_detr_small import model
from ..common.optim import optimizer
from ..common.schedule import schedule
from ..common.train import train

dataset.generate.image_size = 160
dataset.short_side = 160
optimizer.lr = 5e-4
optimizer.params.rules[0].lr_factor = 1.0  # the backbone is not pre-trained and learns as fast as the rest
schedule.epochs = 10
schedule.drop_epochs = [8]
schedule.warmup_iters = 50
train.output_dir = "output/quickstart"
train.batch_size = 16
train.eval_period_epochs = 2
