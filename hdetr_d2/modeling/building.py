"""What a user who builds a model by hand gets wrong, said in one line."""

from __future__ import annotations

from typing import Any, TypeVar

from hdetr_d2.errors import UserError

_Model = TypeVar("_Model", bound="FromLazyConfig")


class BuildError(UserError, ValueError):
    """A model cannot be built this way; the message says how it can."""


class FromLazyConfig:
    """Base of a registered meta-architecture that is built from parts, and not from a yacs config.

    Raises:
        BuildError: it is called with a config, as ``detectron2.modeling.build_model`` does.
    """

    def __new__(cls: type[_Model], *args: Any, **_parts: Any) -> _Model:
        """Refuse what Detectron2's ``build_model`` gives."""
        if args:
            raise BuildError(
                f"{cls.__name__} is built from a LazyConfig and not from a yacs config (MODEL.META_ARCHITECTURE): "
                'cfg = hdetr_d2.model_zoo.get_config("h_deformable_detr_r50_12ep"); cfg.dataset.num_classes = 80; '
                "model = detectron2.config.instantiate(cfg.model)"
            )
        return super().__new__(cls)


def require_class_count(num_classes: object) -> None:
    """Refuse a recipe's model whose class count nobody has set.

    Raises:
        BuildError: it is None.
    """
    if num_classes is None:
        raise BuildError(
            "num_classes is missing: training reads it from the dataset; where a model is built by hand, set "
            "cfg.dataset.num_classes = 80, or what it is, before instantiate(cfg.model)"
        )
