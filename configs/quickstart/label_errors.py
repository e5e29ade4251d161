from .schemes.one_to_one import dataloader, dataset, model, optimizer, schedule, train

# One object in eight has a faulty annotation. What the matching of a training says of them is measured by
# benchmarks/microscope.py. Few and large objects: what is learned soon is known well enough to judge its labels.
dataset.generate.update(num_train=1200, num_val=100, image_size=64, max_objects=4, object_scale=[0.3, 0.7])
dataset.generate.label_errors = dict(missing=0.03, doubled=0.02, displaced=0.03, wrong_class=0.05)
dataset.short_side = 64
dataloader.train.mapper.augmentations.scales = [64]
model.transformer.decoder.num_layers = 2
model.transformer.query_source.num_queries = 20

schedule.epochs = 10
schedule.drop_epochs = [7, 9]
train.batch_size = 8
train.microscope = True
train.output_dir = "output/label_errors"
