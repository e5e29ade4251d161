from ..common.supervision import hybrid_proposals as _scheme
from .one_to_one_generated import dataloader, dataset, model, optimizer, schedule, train

# What learns most in five minutes (docs/schemes.md): the encoder's proposals one-to-many, the decoder one-to-one.
model.supervision = _scheme
train.output_dir = "output/quickstart"
