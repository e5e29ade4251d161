"""The dataset that needs no download: drawn from a seed, stored in COCO format."""

from .classes import MAX_CLASSES, ObjectClass, object_classes
from .scene import Scene
from .store import GeneratedFiles, GeneratedSpec, default_cache_folder, ensure_generated

__all__ = [
    "MAX_CLASSES",
    "GeneratedFiles",
    "GeneratedSpec",
    "ObjectClass",
    "Scene",
    "default_cache_folder",
    "ensure_generated",
    "object_classes",
]
