from ..common.models.dfine_sizes import make_s
from ..common.optim import deim_optimizer as optimizer
from .deim_dfine_hgnetv2_l_58ep import dataloader, dataset, model, schedule, train

make_s(model)
optimizer.lr = 4e-4
optimizer.params.rules[1].lr_factor = 0.5  # of the backbone
schedule.update(epochs=132, cosine_epochs=[64, 120])
dataloader.train.batch_transforms[1].repeats = 20
