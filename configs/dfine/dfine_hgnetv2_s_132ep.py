from ..common.models.dfine_sizes import make_s
from ..common.optim import dfine_small_optimizer as optimizer
from .dfine_hgnetv2_l_80ep import dataloader, dataset, model, schedule, train

make_s(model)
schedule.epochs = 132
dataloader.train.mapper.augmentations.strong_epochs = [0, 120]
dataloader.train.batch_transforms[0].repeats = 20
