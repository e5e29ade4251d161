from detectron2.config import LazyCall as L

from hdetr_d2.supervision import OneToOne

from .h_deformable_detr_small import dataloader, dataset, model, optimizer, schedule, train

# What the hybrid branch is compared with: the same model, seed and iterations, without the branch.
model.supervision = L(OneToOne)()
train.output_dir = "output/bccd/deformable_detr_small"
