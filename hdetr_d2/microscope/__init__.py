"""What matching does in a training, object by object: recorded, and told."""

from .prices import query_prices
from .reading import Recording, read_recording
from .recorder import MatchRecorder, NoAnnotationIds

__all__ = ["MatchRecorder", "NoAnnotationIds", "Recording", "query_prices", "read_recording"]
