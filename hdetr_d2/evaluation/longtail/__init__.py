"""The long-tail report: how one or two models do on rare, common and frequent classes, as one HTML page."""

from ..errors import ReportError
from .figures import LongTailFigures, analyse
from .page import Page, render
from .runs import POSITIVES_FILE, DatasetFiles, RunFiles, files_of_run, write_report

__all__ = [
    "POSITIVES_FILE",
    "DatasetFiles",
    "LongTailFigures",
    "Page",
    "ReportError",
    "RunFiles",
    "analyse",
    "files_of_run",
    "render",
    "write_report",
]
