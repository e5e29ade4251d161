from .relation_detr_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

schedule.update(epochs=24, drop_epochs=[20])  # where it drops was not published
