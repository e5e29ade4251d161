from ..rtdetrv2_r34_120ep import dataloader, dataset, model, optimizer, schedule, train

# Fine-tuning of the model that rtdetrv2_r34_120ep.py trains: give it as train.init_checkpoint.
model.transformer.decoder.layer.sampling = "discrete"
schedule.epochs = 12
dataloader.train.mapper.augmentations.strong_epochs = [0, 10]
