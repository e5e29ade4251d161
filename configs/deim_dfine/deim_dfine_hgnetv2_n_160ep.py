from ..common.models.dfine_sizes import make_n
from ..common.optim import dfine_small_optimizer as optimizer
from .deim_dfine_hgnetv2_l_58ep import dataloader, dataset, model, schedule, train

make_n(model)
optimizer.lr = 8e-4
# The rate stays; where mosaic and mixup, and then all strong augmentation, end is said here all the same.
schedule.update(epochs=160, cosine_epochs=[78, 148], final_factor=1.0)
dataloader.train.batch_transforms.pop()  # one size alone
train.batch_size = 128
