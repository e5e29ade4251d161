from ..common.models.dfine_sizes import make_n
from ..common.optim import dfine_small_optimizer as optimizer
from .dfine_hgnetv2_l_80ep import dataloader, dataset, model, schedule, train

make_n(model)
optimizer.lr = 8e-4
schedule.epochs = 160
dataloader.train.mapper.augmentations.strong_epochs = [0, 148]
dataloader.train.batch_transforms = []  # one size alone
train.batch_size = 128
