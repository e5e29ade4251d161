"""Learning rate over training, in epochs; ``hdetr_d2.engine.schedule`` turns it into iterations.

The published lengths: 12, 24 and 36 epochs are H-DETR's, 50 Deformable DETR's.
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
