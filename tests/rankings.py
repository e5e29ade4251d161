"""Data that decide a test: rankings of which no processor's rounding changes the outcome.

Two programs, or one program on two processors, add the same numbers in different orders and differ by rounding. A test
that compares what stands behind a ranking (the best proposals, the order of detections) holds everywhere only if the
ranked scores differ by far more than that, so such a test draws its data with :func:`decided`.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")
ROUNDING = torch.finfo(torch.float32).eps
MARGIN = 100 * ROUNDING  # in parts of the largest score; a tiny model's scores differ by about 2 roundings


class Rankings(TorchDispatchMode):
    """While active, measures the gaps of all scores that are ranked, PyTorch's own and other packages' calls alike.

    ``smallest`` is the smallest gap between neighbours of a ranking, as far as it is read (the first that is left out
    included), in parts of its largest score; infinite if nothing was ranked. Scores that are infinite do not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.smallest = float("inf")
        self.count = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket in (torch.ops.aten.topk, torch.ops.aten.sort) and args[0].is_floating_point():
            arguments = {a.name: a.default_value for a in func._schema.arguments if a.has_default_value()}
            arguments.update({a.name: value for a, value in zip(func._schema.arguments, args)})
            arguments.update(kwargs)
            scores = args[0].detach().movedim(arguments["dim"], -1)
            downwards = arguments.get("largest", arguments.get("descending"))
            self._measure(scores, arguments.get("k", scores.shape[-1]), bool(downwards))
        return func(*args, **kwargs)

    def _measure(self, scores: Tensor, k: int, downwards: bool) -> None:
        self.count += 1
        self.smallest = min(self.smallest, smallest_gap(scores if downwards else -scores, k))


def smallest_gap(scores: Tensor, k: int) -> float:
    """The smallest gap between neighbours among the k + 1 largest finite scores of each row (..., n).

    In parts of the row's largest magnitude; infinite where no row has two of them.
    """
    gaps = []
    for row in scores.double().reshape(-1, scores.shape[-1]):
        ranked = row[row.isfinite()].sort(descending=True).values[: k + 1]
        if len(ranked) > 1:
            gaps.append(float(-ranked.diff().max() / ranked.abs().max().clamp(min=1e-30)))
    return min(gaps, default=float("inf"))


def decided(draw: Callable[[], T], run: Callable[[T], object], *, margin: float = MARGIN, attempts: int = 20) -> T:
    """The first draw for which everything that ``run`` ranks is ranked by gaps of at least ``margin``.

    Args:
        draw: makes data from PyTorch's generator; called until its data decide.
        run: the program that ranks, called on a draw.
        margin: in parts of the largest score.

    Raises:
        AssertionError: if nothing was ranked, or no draw decides: the model then gives all of its scores in one lump,
            and what is wrong is the model (see :func:`calibrate`), not the draw.
    """
    gaps: list[float] = []
    for _ in range(attempts):
        drawn = draw()
        with Rankings() as rankings:
            run(drawn)
        assert rankings.count, "nothing was ranked, so there is nothing to decide"
        if rankings.smallest >= margin:
            return drawn
        gaps.append(rankings.smallest)
    raise AssertionError(f"the scores of {attempts} draws are ranked by gaps of {gaps}, below {margin}")


@torch.no_grad()
def calibrate(model: nn.Module, run: Callable[[], object]) -> None:
    """Set the statistics of all batch normalisations, frozen ones too, to those of what ``run`` feeds the model.

    With statistics as they are initialised, what a random deep network makes of noise differs between places by 1e-6
    of its size, so that scores of places are ties; normalised by its own statistics it differs by as much as it is.
    """

    def measure(module: Any, arguments: tuple[Tensor]) -> None:
        (x,) = arguments
        module.running_mean.copy_(x.mean((0, 2, 3)))
        module.running_var.copy_(x.var((0, 2, 3)).clamp(min=1e-3))

    normalisations = [module for module in model.modules() if hasattr(module, "running_var")]
    assert normalisations
    hooks = [module.register_forward_pre_hook(measure) for module in normalisations]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def mute_invalid_proposals(project: Callable[[Tensor], Tensor], class_head: nn.Linear) -> None:
    """Make places without a proposal score lowest, as in a trained model; the authors' ranking does not mask them.

    Args:
        project: what a two-stage model makes of tokens before ranking; places without a proposal are zero before it,
            so that their scores are all the same.
        class_head: of the encoder; its first row ranks.
    """
    features = project(torch.zeros(class_head.in_features))
    class_head.weight[0] -= 3 * features / features.norm()
