from detectron2.config import LazyCall as L

from hdetr_d2.modeling.denoising import DenoisingQueries

# DN-DETR: groups of noised targets, which learn nothing but what they were.
dn = L(DenoisingQueries)(
    num_classes="${...num_classes}",
    embed_dim="${..embed_dim}",
    num_groups=5,
    budget=None,
    contrastive=False,
    label_noise=0.2,
    box_noise=0.4,
    indicator=True,
    train_background=False,
    local_divisor=True,
)

# DINO: about a hundred positives an image, each with a negative that learns to be background.
contrastive = L(DenoisingQueries)(
    num_classes="${...num_classes}", embed_dim="${..embed_dim}", budget=100, label_noise=0.25, box_noise=1.0
)
