from detectron2.config import LazyCall as L

from hdetr_d2.supervision import OneToOne

from ..h_deformable_detr_generated import dataloader, dataset, model, optimizer, schedule, train

# Small enough for a run of minutes on one core: fewer classes, larger objects, small pictures.
dataset.generate.update(image_size=96, num_classes=6, max_objects=12, object_scale=[0.16, 0.64])
dataset.short_side = 96
dataloader.num_workers = 1
dataloader.train.mapper.augmentations.scales = [96]
model.transformer.decoder.num_layers = 3
model.transformer.query_source.num_queries = 40
model.supervision = L(OneToOne)()

schedule.epochs = 1.6
schedule.drop_epochs = [1.1, 1.45]
train.batch_size = 4
train.eval_untrained = False
train.eval_period_epochs = 0
train.output_dir = "output/schemes/one_to_one"
