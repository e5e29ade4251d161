"""Putting weights into a model that was just built."""

from __future__ import annotations

from collections.abc import Mapping

from omegaconf import DictConfig
from torch import Tensor, nn

from hdetr_d2.checkpoint import CheckpointError
from hdetr_d2.checkpoint.renaming import is_derived
from hdetr_d2.errors import UserError


class QueryCountError(UserError, ValueError):
    """Another number of queries than a model can be given."""


def load_weights(model: nn.Module, state: Mapping[str, Tensor], average: Mapping[str, Tensor], path: str) -> None:
    """Load all of a model's weights.

    Args:
        model: changed in place.
        state: of the whole model.
        average: replaces some or all of them afterwards.
        path: of the file, for messages.

    Raises:
        CheckpointError: something is missing, too much, or of another shape.
    """
    expected = model.state_dict()
    wrong = [f"{key} is missing" for key in expected if key not in state and not is_derived(key)]
    wrong += [f"{key} is not the model's" for key in state if key not in expected]
    wrong += [
        f"{key} is {tuple(state[key].shape)} and not {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(f"{path}: does not fit its config's model: {'; '.join(wrong[:3])}{more}")
    model.load_state_dict(dict(state), strict=False)
    if average:
        model.load_state_dict(dict(average), strict=False)


def reduce_queries(cfg: DictConfig, state: Mapping[str, Tensor], num_queries: int) -> dict[str, Tensor]:
    """Let a two-stage model take its best ``num_queries`` proposals only; changes ``cfg``.

    Returns:
        The weights, with the contents of the queries that are left.

    Raises:
        QueryCountError: the model has no proposals to choose from, or fewer queries.
    """
    source = cfg.model.get("transformer", {}).get("query_source")
    target = source.get("_target_", "") if source is not None else ""
    name = target if isinstance(target, str) else target.__name__
    if not name.endswith("TwoStageQueries"):
        raise QueryCountError("num_queries: only two-stage models can be given fewer queries; this one learned its own")
    trained = int(source.num_queries)
    if not 1 <= num_queries <= trained:
        raise QueryCountError(f"num_queries must be in [1, {trained}], the model's own, not {num_queries}")
    source.num_queries = num_queries
    contents = {
        key
        for key, value in state.items()
        if key.startswith("transformer.query_source.") and key.endswith(".one2one") and len(value) == trained
    }
    return {key: value[:num_queries] if key in contents else value for key, value in state.items()}
