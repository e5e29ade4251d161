"""RT-DETRv2 with discrete sampling, to be fine-tuned from a model without it."""

from .rtdetr import model

model.transformer.decoder.layer.sampling = "discrete"
