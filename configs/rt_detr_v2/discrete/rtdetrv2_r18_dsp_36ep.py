from ..rtdetrv2_r18_120ep import dataloader, dataset, model, optimizer, schedule, train

# Fine-tuning of the model that rtdetrv2_r18_120ep.py trains: give it as train.init_checkpoint.
model.transformer.decoder.layer.sampling = "discrete"
schedule.epochs = 36
dataloader.train.mapper.augmentations.strong_epochs = [0, 33]
