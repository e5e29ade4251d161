"""From a dataset of any layout and a model's name to a trained model, its thresholds and a report."""

from .choices import Choice, DataFacts, choose
from .finish import finish
from .run import FinetuneError, finetune
from .start import Start, open_start

__all__ = ["Choice", "DataFacts", "FinetuneError", "Start", "choose", "finetune", "finish", "open_start"]
