"""``hdetr-d2 eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hdetr_d2.errors import UserError

from .options import Annotations, BatchSize, Device, Download


class EvalError(UserError, ValueError):
    """Options of eval that do not go together."""


MeasuredModel = Annotated[
    str | None, typer.Option("--model", metavar="RUN|FILE|zoo:NAME", help="The model to measure.")
]
Data = Annotated[str | None, typer.Option("--data", metavar="PATH", help="A dataset: COCO, LVIS, YOLO or Pascal VOC.")]
Split = Annotated[str, typer.Option("--split", help="Of the dataset: val, test or train.")]
Results = Annotated[
    Path | None, typer.Option("--results", metavar="FILE", help="Detections in COCO's format, in place of a model.")
]
Style = Annotated[
    Literal["auto", "coco", "lvis"], typer.Option("--style", help="Whose metrics; auto looks at the annotations.")
]
Output = Annotated[Path | None, typer.Option("--output", metavar="FILE.json", help="Also write the metrics there.")]
MaxDets = Annotated[
    int | None,
    typer.Option("--max-dets", min=1, help="Detections of an image that count: 100 of each class, LVIS 300 of all."),
]
Fixed = Annotated[bool, typer.Option("--fixed", help="LVIS: also AP-fixed, of the 10,000 best of every class.")]
Train = Annotated[
    Path | None,
    typer.Option("--train", metavar="FILE", help="LVIS: training annotations, where the others have no frequencies."),
]
Invalid = Annotated[
    Literal["error", "drop"], typer.Option("--invalid", help="What becomes of faulty annotations, as in training.")
]
Backend = Annotated[str, typer.Option("--backend", metavar="NAME", help="Which program compares.")]
Precision = Annotated[Literal["fp32", "bf16", "fp16"], typer.Option("--precision", help="Of the model.")]


def evaluate(
    model: MeasuredModel = None,
    data: Data = None,
    split: Split = "val",
    annotations: Annotations = None,
    results: Results = None,
    style: Style = "auto",
    output: Output = None,
    max_dets: MaxDets = None,
    fixed: Fixed = False,
    train: Train = None,
    invalid: Invalid = "error",
    backend: Backend = "auto",
    device: Device = None,
    precision: Precision = "fp32",
    batch_size: BatchSize = 1,
    download: Download = False,
) -> None:
    """Measure a model on a dataset, or detections against annotations.

    Examples:

    hdetr-d2 eval --model output/run --data photos/

    hdetr-d2 eval --annotations val.json --results found/detections.json

    hdetr-d2 eval --annotations lvis_v1_val.json --results theirs.json --fixed --output metrics.json
    """
    by_model, by_results = model is not None and data is not None, annotations is not None and results is not None
    if by_model == by_results or (by_model and (annotations or results)) or (by_results and (model or data)):
        raise EvalError("give either --model and --data, or --annotations and --results")
    from hdetr_d2.evaluation.measuring import Measurement, measure, write_metrics
    from hdetr_d2.evaluation.metrics import log_metrics

    from .logging import plain_logging

    plain_logging()
    if output is not None:
        from hdetr_d2.output import refuse_unwritable

        refuse_unwritable(output, make_folder=True)
    wanted = Measurement(style=style, max_dets=max_dets, backend=backend, fixed=fixed, train=train, invalid=invalid)
    if model is not None and data is not None:
        from hdetr_d2.detector import Detector
        from hdetr_d2.prediction.evaluation import evaluate_model

        detector = Detector.load(model, score_threshold=0.0, precision=precision, device=device)
        metrics = evaluate_model(detector, data, split=split, wanted=wanted, batch_size=batch_size)
    else:
        assert annotations is not None
        assert results is not None
        metrics = measure(annotations, results, wanted)
    log_metrics(metrics)
    if output is not None:
        write_metrics(output, metrics)
