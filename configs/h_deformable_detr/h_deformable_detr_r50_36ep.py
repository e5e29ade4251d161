from .h_deformable_detr_r50_12ep import dataloader, dataset, model, optimizer, schedule, train

schedule.epochs = 36  # 50.0 AP on COCO val2017 (H-DETR, table 1)
schedule.drop_epochs = [30]
train.output_dir = "output/h_deformable_detr_r50_36ep"
