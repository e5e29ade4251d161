from ..common.models.dfine_sizes import make_m
from ..common.optim import deim_optimizer as optimizer
from .deim_dfine_hgnetv2_l_58ep import dataloader, dataset, model, schedule, train

make_m(model)
optimizer.lr = 4e-4
schedule.update(epochs=102, cosine_epochs=[49, 90])
dataloader.train.batch_transforms[1].repeats = 6
