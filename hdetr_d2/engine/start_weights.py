"""What ``train.init_checkpoint`` names, as a file on this machine."""

from __future__ import annotations

from hdetr_d2.detector.sources import ZOO, checkpoint_file
from hdetr_d2.weights import is_address


def start_file(source: str) -> str:
    """The file of the weights to start from.

    Args:
        source: a path, or "" for none, which are given back as they are, as are addresses that only Detectron2 knows
            (``detectron2://``); ``zoo:NAME``, ``hf://owner/repository``, ``file://`` or ``http(s)://``.

    Raises:
        UserError: it cannot be had; published weights that are not here are downloaded only where that was allowed.
    """
    if source.startswith(ZOO) or is_address(source):
        return str(checkpoint_file(source))
    return source
