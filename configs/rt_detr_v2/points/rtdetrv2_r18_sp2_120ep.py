from ..rtdetrv2_r18_120ep import dataloader, dataset, model, optimizer, schedule, train

model.transformer.decoder.layer.num_points = [2, 2, 2]
