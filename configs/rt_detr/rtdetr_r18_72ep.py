from ..common.models.rtdetr_sizes import make_r18
from .rtdetr_r50_72ep import dataloader, dataset, model, optimizer, schedule, train

make_r18(model)
