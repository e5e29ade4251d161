from ..common.data.generated import dataloader, dataset
from ..common.models.h_deformable_detr_small import model
from ..common.optim import scratch_optimizer as optimizer
from ..common.schedule import schedule_scratch_5ep as schedule
from ..common.train import train

dataset.generate.image_size = 128
dataset.short_side = 128
model.transformer.decoder.num_layers = 2
# Five epochs are too few to profit from objects cut off and scaled.
dataloader.train.mapper.augmentations.update(crop_probability=0.0, scales=[128])

train.batch_size = 8
train.eval_untrained = True
train.eval_period_epochs = 2
train.output_dir = "output/quickstart_branch"
