"""Learning rate over training, in epochs; ``hdetr_d2.engine.schedule`` turns it into iterations.

The published lengths: 12, 24 and 36 epochs are H-DETR's and DINO's, 50 Deformable DETR's, DAB-DETR's and DN-DETR's.
Others are imported by their names: ``from ..common.schedule import schedule_deim_60ep as schedule``.
"""

schedule = dict(
    epochs=12,
    drop_epochs=[11],
    drop_factor=0.1,
    warmup_iters=0,  # the DETR recipes use no warm-up
    warmup_factor=0.001,
    warmup_power=1,  # 2: quadratic
    shape="step",  # "step" | "flat_cosine"
    cosine_epochs=[],  # of "flat_cosine": first and last epoch of the descent
    final_factor=0.5,  # of "flat_cosine": reached at the end of the descent
)
schedule_12ep = schedule
schedule_24ep = dict(schedule, epochs=24, drop_epochs=[20])
schedule_36ep = dict(schedule, epochs=36, drop_epochs=[30])
schedule_50ep = dict(schedule, epochs=50, drop_epochs=[40])

# Relation-DETR
schedule_relation_12ep = dict(schedule, drop_epochs=[10], warmup_iters=1000)

# DETR
schedule_150ep = dict(schedule, epochs=150, drop_epochs=[100])
schedule_300ep = dict(schedule, epochs=300, drop_epochs=[200])
schedule_500ep = dict(schedule, epochs=500, drop_epochs=[400])

# Small models from scratch, in minutes
schedule_scratch_5ep = dict(schedule, epochs=5, drop_epochs=[3, 4], drop_factor=0.3, warmup_iters=50)

# RT-DETR: constant; RT-DETRv2 warms up (its factor at step t is (t + 1) / 2000)
schedule_rtdetr_72ep = dict(schedule, epochs=72, drop_epochs=[])
schedule_rtdetrv2_72ep = dict(schedule_rtdetr_72ep, warmup_iters=2000, warmup_factor=1 / 2000)

# D-FINE: constant after a shorter warm-up
schedule_dfine_80ep = dict(schedule_rtdetr_72ep, epochs=80, warmup_iters=500, warmup_factor=1 / 500)

# DEIM: mosaic and mixup end where the descent begins, strong augmentation where it ends (common/augmentation.py)
schedule_deim_60ep = dict(
    schedule,
    epochs=60,
    drop_epochs=[],
    shape="flat_cosine",
    cosine_epochs=[34, 58],
    final_factor=0.5,
    warmup_iters=2000,
    warmup_factor=0.0,
    warmup_power=2,
)
schedule_deim_120ep = dict(schedule_deim_60ep, epochs=120, cosine_epochs=[64, 117])
schedule_deim_58ep = dict(schedule_deim_60ep, epochs=58, cosine_epochs=[29, 50])
