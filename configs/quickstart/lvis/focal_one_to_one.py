from detectron2.config import LazyCall as L

from hdetr_d2.supervision import OneToOne

from ...common.data.generated_lvis import dataloader, dataset
from ...common.losses import positive_counter as _counter
from ...common.models.h_deformable_detr_small import model
from ...common.optim import scratch_optimizer as optimizer
from ...common.schedule import schedule_scratch_5ep as schedule
from ...common.train import train

# A long tail of 200 classes, in two minutes on one core if it starts from what pretraining.py ends with:
# train.init_checkpoint=output/lvis/pretraining/model_0001250.pth
dataloader.train.mapper.augmentations.update(crop_probability=0.0, scales=[112])
dataloader.num_workers = 1
model.transformer.decoder.num_layers = 2
model.transformer.heads.encoder_classes = 1
model.transformer.query_source.num_queries = 40
model.supervision = L(OneToOne)()
model.criterion.counter = _counter
model.num_detections = 100

schedule.epochs = 1.5
schedule.drop_epochs = [1.1, 1.35]
train.batch_size = 8
train.eval_period_epochs = 0
train.longtail_report = True
train.output_dir = "output/lvis/focal_one_to_one"
