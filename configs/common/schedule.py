"""Learning rate over training, in epochs; ``hdetr_d2.engine.schedule`` turns it into iterations."""

schedule = dict(
    epochs=12,
    drop_epochs=[11],
    drop_factor=0.1,
    warmup_iters=0,  # the DETR recipes use no warm-up
    warmup_factor=0.001,
)
