"""Optimiser groups chosen by parameter name, and the table that shows them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

from .errors import ConfigError

logger = logging.getLogger(__name__)

DEFAULT_GROUP = "default"

KINDS = ("norm", "bias")

_NORMS: tuple[type[nn.Module], ...] = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)


@dataclass(frozen=True, kw_only=True)
class ParamRule:
    """Which parameters differ from the rest, and by how much.

    The rule holds for a parameter that meets every condition that is given.

    Args:
        name: what the group is called in the log and in the optimiser's state.
        contains: the dotted name contains one of these strings.
        pattern: the dotted name has a match of this regular expression.
        kinds: it is of one of these kinds: "norm" is any parameter of a normalisation layer, "bias" any whose name ends
            in "bias".
        lr_factor: multiplies the base learning rate; None leaves it to later rules.
        weight_decay_factor: multiplies the weight decay; None leaves it to later rules.
    """

    name: str
    contains: Sequence[str] = ()
    pattern: str = ""
    kinds: Sequence[str] = ()
    lr_factor: float | None = None
    weight_decay_factor: float | None = None

    def __post_init__(self) -> None:
        for field in ("contains", "kinds"):
            if isinstance(getattr(self, field), str):
                raise ConfigError(f'optimiser rule "{self.name}": {field} must be a list of strings')
        if not (self.contains or self.pattern or self.kinds):
            raise ConfigError(f'optimiser rule "{self.name}" names no parameters: give contains, pattern or kinds')
        if not set(self.kinds) <= set(KINDS):
            raise ConfigError(f'optimiser rule "{self.name}": kinds are {", ".join(KINDS)}, not {list(self.kinds)}')
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f'optimiser rule "{self.name}": pattern is no regular expression: {error}') from error
        if self.lr_factor is None and self.weight_decay_factor is None:
            raise ConfigError(f'optimiser rule "{self.name}" sets neither lr_factor nor weight_decay_factor')

    def matches(self, parameter_name: str, *, of_norm: bool = False) -> bool:
        """Whether the rule holds for a parameter.

        Args:
            of_norm: it belongs to a normalisation layer.
        """
        if self.contains and not any(part in parameter_name for part in self.contains):
            return False
        if self.pattern and not re.search(self.pattern, parameter_name):
            return False
        is_kind = {"norm": of_norm, "bias": parameter_name.endswith("bias")}
        return not self.kinds or any(is_kind[kind] for kind in self.kinds)


@dataclass(frozen=True)
class _Decision:
    """What the rules say about one parameter: the factors, and the names of the rules that set them."""

    group: str
    lr_factor: float
    weight_decay_factor: float


def _decide(parameter_name: str, rules: Sequence[ParamRule], *, of_norm: bool) -> _Decision:
    lr_factor: float | None = None
    weight_decay_factor: float | None = None
    used: list[str] = []
    for rule in rules:
        if not rule.matches(parameter_name, of_norm=of_norm):
            continue
        sets_lr = lr_factor is None and rule.lr_factor is not None
        sets_decay = weight_decay_factor is None and rule.weight_decay_factor is not None
        if sets_lr:
            lr_factor = rule.lr_factor
        if sets_decay:
            weight_decay_factor = rule.weight_decay_factor
        if sets_lr or sets_decay:
            used.append(rule.name)
    return _Decision(
        group="+".join(used) or DEFAULT_GROUP,
        lr_factor=1.0 if lr_factor is None else lr_factor,
        weight_decay_factor=1.0 if weight_decay_factor is None else weight_decay_factor,
    )


def get_param_groups(
    model: nn.Module,
    *,
    base_lr: float,
    weight_decay: float,
    rules: Iterable[ParamRule | Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Put every trainable parameter of ``model`` into exactly one named optimiser group.

    For the learning rate the first matching rule that sets ``lr_factor`` decides, for the weight decay the first that
    sets ``weight_decay_factor``. Parameters with the same deciding rules share a group; what no rule names is
    "default". A parameter that several modules share is counted once.

    Args:
        base_lr: learning rate of the default group.
        weight_decay: weight decay of the default group.
        rules: `ParamRule` objects or mappings of their fields.

    Returns:
        Groups {"name", "params", "lr", "weight_decay"} for a torch optimiser, in order of first appearance.

    Raises:
        ConfigError: a shared parameter whose names fall under different rules.
    """
    parsed = [rule if isinstance(rule, ParamRule) else ParamRule(**rule) for rule in rules]
    first_name: dict[int, str] = {}
    groups: dict[_Decision, dict[str, Any]] = {}
    matched: set[str] = set()
    norms = (module for module in model.modules() if isinstance(module, _NORMS))
    of_norm = {id(parameter) for module in norms for parameter in module.parameters(recurse=False)}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        # a frozen parameter also counts as matched: freezing the backbone does not make its rule a mistake
        is_norm = id(parameter) in of_norm
        matched.update(rule.name for rule in parsed if rule.matches(name, of_norm=is_norm))
        if not parameter.requires_grad:
            continue
        decision = _decide(name, parsed, of_norm=is_norm)
        if id(parameter) in first_name:
            other = first_name[id(parameter)]
            first = _decide(other, parsed, of_norm=is_norm)
            if first != decision:
                raise ConfigError(
                    f'the parameter shared as "{other}" and "{name}" falls under different optimiser rules '
                    f'("{first.group}", "{decision.group}"); make one rule match both names'
                )
            continue
        first_name[id(parameter)] = name
        group = groups.setdefault(
            decision,
            {
                "name": decision.group,
                "params": [],
                "lr": base_lr * decision.lr_factor,
                "weight_decay": weight_decay * decision.weight_decay_factor,
            },
        )
        group["params"].append(parameter)
    _warn_of_unused(rule for rule in parsed if rule.name not in matched)
    return list(groups.values())


def _warn_of_unused(rules: Iterable[ParamRule]) -> None:
    """No error: one list of rules serves models with and without deformable attention."""
    for rule in rules:
        conditions = [*rule.contains, *([rule.pattern] if rule.pattern else []), *rule.kinds]
        logger.warning('optimiser rule "%s" matches no parameter (%s)', rule.name, ", ".join(conditions))


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Continue from a state dict; rates, decays, betas and the like stay those that ``optimizer`` was built with.

    Raises:
        ValueError: the state is of another kind of optimiser, or of other groups of parameters.
    """
    groups = []
    for index, (now, before) in enumerate(zip(optimizer.param_groups, state["param_groups"])):
        options = {name: value for name, value in now.items() if name != "params"}
        if options.get("name", "") != before.get("name", ""):
            raise ValueError(
                f'its optimiser group {index} is "{before.get("name")}", now it is "{options.get("name")}"; set '
                "optimizer.params.rules back"
            )
        _require_kept(optimizer, options, [state["state"][key] for key in before["params"] if key in state["state"]])
        for name in options:
            if name in ("lr", "initial_lr") or name not in before or _equal(options[name], before[name]):
                continue
            logger.warning(
                'resuming with %s=%s in the optimiser group "%s"; it was %s',
                name, options[name], options.get("name", index), before[name],
            )  # fmt: skip
        groups.append({**before, **options})
    optimizer.load_state_dict({**state, "param_groups": groups + list(state["param_groups"][len(groups) :])})


def _require_kept(
    optimizer: torch.optim.Optimizer, options: Mapping[str, Any], states: Sequence[Mapping[str, Any]]
) -> None:
    """Refuse states that lack what the optimiser keeps of a parameter with these options, or have nothing of it.

    Raises:
        ValueError: the message names what is kept.
    """
    one = nn.Parameter(torch.zeros(1))
    one.grad = torch.zeros(1)
    kind: Any = type(optimizer)
    try:
        probe = kind([{**options, "params": [one]}])
        probe.step()
    except (TypeError, RuntimeError, AssertionError):  # one of a user's own, or for GPUs only: its own step will tell
        return
    kept = {name for name, value in probe.state[one].items() if value is not None}
    for before in states:
        had = {name for name, value in before.items() if value is not None}
        if not kept <= had or (had and not kept):
            raise ValueError(
                f"its optimiser is no {kind.__name__} with these options, which keeps "
                f"{', '.join(sorted(kept)) or 'nothing'} of every parameter, but kept {', '.join(sorted(had))}; set "
                "optimizer back"
            )


def _equal(now: Any, before: Any) -> bool:
    both_lists = isinstance(now, Sequence) and isinstance(before, Sequence) and not isinstance(now, str)
    return list(now) == list(before) if both_lists else bool(now == before)


def describe_param_groups(groups: Iterable[Mapping[str, Any]]) -> str:
    """A table of the groups: name, tensors, parameters, learning rate, weight decay."""
    rows = [
        (
            group.get("name", "?"),
            len(group["params"]),
            f"{sum(parameter.numel() for parameter in group['params']):,}",
            f"{group['lr']:g}",
            f"{group.get('weight_decay', 0.0):g}",
        )
        for group in groups
    ]
    return tabulate(
        rows,
        headers=("group", "tensors", "parameters", "lr", "weight decay"),
        tablefmt="pipe",
        colalign=("left", "right", "right", "right", "right"),
        disable_numparse=True,
    )
