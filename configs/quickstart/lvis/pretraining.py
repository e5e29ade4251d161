from .focal_one_to_one import dataloader, dataset, model, optimizer, schedule, train

# What the other recipes of this folder start from, in place of ImageNet's weights: the same shapes, patterns and
# colours in 60 combinations that are not among the 200 classes, all of them equally frequent.
dataset.name = "generated_pretraining"
dataset.generate.update(num_train=2000, num_val=200, num_classes=60, first_class=200, long_tail=False)
dataloader.train.sampling = None
schedule.epochs = 5  # five minutes of a core
schedule.drop_epochs = []  # what follows goes on at the same rate
train.output_dir = "output/lvis/pretraining"
