from ..h_deformable_detr_lvis_r50_24ep import dataloader, dataset, model, optimizer, schedule
from .deformable_detr_plus_plus_lvis_24gb_r50_24ep import train
