"""How a run is carried out. The settings' meanings: ``hdetr_d2.engine.settings.TrainSettings``."""

from typing import Any

train: dict[str, Any] = dict(
    output_dir=None,  # None = output/<name of the recipe's file>
    init_checkpoint="",  # weights to start from; optimiser and iteration are not taken from it
    device="auto",  # "auto" | "cpu" | "cuda"
    precision="fp32",  # "fp32" | "bf16" | "fp16"
    matmul_precision="highest",  # of float32 products on GPUs: "highest" | "high" (TF32)
    compile=False,  # make kernels of decoder and losses with torch.compile
    seed=42,
    batch_size=16,  # images per optimiser step, over all processes and accumulation steps
    accumulate=1,  # micro-batches per optimiser step
    clip_grad=dict(max_norm=0.1, norm_type=2.0),  # over the whole model; None = off
    checkpoint=dict(period_epochs=1, max_to_keep=2),
    eval_period_epochs=1,  # 0 = only at the end
    eval_untrained=False,  # also evaluate before the first step
    best_metric="bbox/AP",
    log_period=20,
    ddp=dict(find_unused_parameters=False, broadcast_buffers=False),
    ema=None,  # dict() keeps a moving average of the weights: hdetr_d2.engine.settings.EMASettings
    early_stopping=None,  # dict(patience_epochs=10) ends a training that best_metric no longer rises in
    freeze=[],  # regular expressions of parameters that are not trained
    freeze_bn=[],  # regular expressions of BatchNorms that become fixed scales and shifts
    sync_bn=False,  # statistics of BatchNorms over all processes
    if_exists="refuse",  # what a new run does with a folder that holds a training: "refuse" | "number" | "overwrite"
    hooks=[],  # of your own: L(MyHook)(...)
    writers=[],  # of your own, for the log: L(MyWriter)(...)
    longtail_report=False,  # on a dataset in LVIS format: write longtail.html at the end
    microscope=False,  # record what every object is matched with, for hdetr-d2 report matching
)
