"""Pictures of data, predictions and training."""

from .curves import plot_panels, plot_runs, read_metrics
from .datasets import dataset_sheet
from .pictures import (
    DrawnBox,
    class_colour,
    comparison_sheet,
    draw_boxes,
    load_predictions,
    predicted_boxes,
    truth_boxes,
)

__all__ = [
    "DrawnBox",
    "class_colour",
    "comparison_sheet",
    "dataset_sheet",
    "draw_boxes",
    "load_predictions",
    "plot_panels",
    "plot_runs",
    "predicted_boxes",
    "read_metrics",
    "truth_boxes",
]
