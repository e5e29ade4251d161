from ..common.models.deformable_detr_two_stage import model
from .deformable_detr_r50_50ep import dataloader, dataset, optimizer, schedule, train
