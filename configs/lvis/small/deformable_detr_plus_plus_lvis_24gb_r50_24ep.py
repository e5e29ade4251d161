from ..deformable_detr_plus_plus_lvis_r50_24ep import dataloader, dataset, model, optimizer, schedule, train

# The same steps on one GPU of 24 GB: four images at a time, in bfloat16. (The paper's two images of COCO, with 1800
# queries in float32, take 7.7 GB.) Not published, and not trained by us.
train.accumulate = 4
train.precision = "bf16"
