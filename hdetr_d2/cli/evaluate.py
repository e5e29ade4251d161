"""``hdetr-d2 eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hdetr_d2.errors import UserError

from .options import Annotations, BatchSize, Device, Download


class EvalError(UserError, ValueError):
    """Options of eval that do not go together."""


def evaluate(
    model: Annotated[
        str | None, typer.Option("--model", metavar="RUN|FILE|zoo:NAME", help="The model to measure.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="PATH", help="A dataset: COCO, LVIS, YOLO or Pascal VOC.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Of the dataset: val, test or train.")] = "val",
    annotations: Annotations = None,
    results: Annotated[
        Path | None, typer.Option("--results", metavar="FILE", help="Detections in COCO's format, in place of a model.")
    ] = None,
    style: Annotated[
        Literal["auto", "coco", "lvis"], typer.Option("--style", help="Whose metrics; auto looks at the annotations.")
    ] = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE.json", help="Also write the metrics there.")
    ] = None,
    device: Device = None,
    precision: Annotated[Literal["fp32", "bf16", "fp16"], typer.Option("--precision", help="Of the model.")] = "fp32",
    batch_size: BatchSize = 1,
    download: Download = False,
) -> None:
    """Measure a model on a dataset, or detections against annotations.

    Examples:

    hdetr-d2 eval --model output/run --data photos/

    hdetr-d2 eval --annotations val.json --results found/detections.json
    """
    by_model, by_results = model is not None and data is not None, annotations is not None and results is not None
    if by_model == by_results or (by_model and (annotations or results)) or (by_results and (model or data)):
        raise EvalError("give either --model and --data, or --annotations and --results")
    from hdetr_d2.evaluation import evaluate_coco, evaluate_lvis
    from hdetr_d2.evaluation.metrics import log_metrics
    from hdetr_d2.prediction.evaluation import evaluate_model, write_metrics

    from .logging import plain_logging

    plain_logging()
    if model is not None and data is not None:
        from hdetr_d2.detector import Detector

        detector = Detector.load(model, score_threshold=0.0, precision=precision, device=device)
        metrics = evaluate_model(detector, data, split=split, style=style, batch_size=batch_size)
    else:
        assert annotations is not None
        assert results is not None
        if style == "auto":
            from hdetr_d2.data import read_annotation_file

            style = "lvis" if read_annotation_file(annotations).image_negative is not None else "coco"
        metrics = (evaluate_lvis if style == "lvis" else evaluate_coco)(str(annotations), str(results))
    log_metrics(metrics)
    if output is not None:
        write_metrics(output, metrics)
