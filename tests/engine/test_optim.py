import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from hdetr_d2.engine import ConfigError, ParamRule, ScheduleSettings, build_schedule, get_param_groups
from hdetr_d2.engine.optim import describe_param_groups, load_optimizer_state


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, 4)
        self.attention = nn.ModuleDict({"sampling_offsets": nn.Linear(4, 5), "value": nn.Linear(4, 4)})
        self.heads = nn.ModuleList([nn.Linear(4, 2)] * 3)  # one head, three times
        self.norm = nn.LayerNorm(4)


RULES = [
    {"name": "backbone", "contains": ["backbone."], "lr_factor": 0.1},
    {"name": "offsets", "contains": ["sampling_offsets", "reference_points"], "lr_factor": 0.1},
]


def test_every_parameter_is_in_exactly_one_group_shared_ones_once() -> None:
    model = Model()
    groups = get_param_groups(model, base_lr=2e-4, weight_decay=1e-4, rules=RULES)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted({id(parameter) for parameter in model.parameters()})


def test_the_published_groups_have_their_rates() -> None:
    model = Model()
    groups = {group["name"]: group for group in get_param_groups(model, base_lr=2e-4, weight_decay=1e-4, rules=RULES)}
    rates = {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()}
    assert rates == {
        "backbone": (pytest.approx(2e-5), 1e-4),
        "offsets": (pytest.approx(2e-5), 1e-4),
        "default": (2e-4, 1e-4),
    }
    assert groups["backbone"]["params"] == list(model.backbone.parameters())
    assert groups["offsets"]["params"] == list(model.attention["sampling_offsets"].parameters())


def test_rules_for_rate_and_decay_combine() -> None:
    rules = [*RULES, ParamRule(name="no_decay", contains=["bias", "norm"], weight_decay_factor=0.0)]
    model = Model()
    groups = {group["name"]: group for group in get_param_groups(model, base_lr=1.0, weight_decay=0.5, rules=rules)}
    (bias,) = groups["backbone+no_decay"]["params"]
    assert bias is model.backbone.bias
    assert (groups["backbone+no_decay"]["lr"], groups["backbone+no_decay"]["weight_decay"]) == (0.1, 0.0)
    assert len(groups) == 6


def test_frozen_parameters_are_left_out() -> None:
    model = Model()
    model.backbone.requires_grad_(False)
    names = [group["name"] for group in get_param_groups(model, base_lr=1.0, weight_decay=0.0, rules=RULES)]
    assert sorted(names) == ["default", "offsets"]


def test_a_parameter_shared_across_rules_is_refused() -> None:
    model = Model()
    model.backbone.weight = model.heads[0].weight
    with pytest.raises(ConfigError, match=r"backbone\.weight.*heads\.0\.weight"):
        get_param_groups(model, base_lr=1.0, weight_decay=0.0, rules=RULES)


def test_the_table_counts_every_parameter() -> None:
    model = Model()
    table = describe_param_groups(get_param_groups(model, base_lr=1.0, weight_decay=0.0, rules=RULES))
    counts = [int(row.split("|")[3].replace(",", "")) for row in table.splitlines()[2:]]
    assert sum(counts) == sum(parameter.numel() for parameter in model.parameters())


def schedule(**changes: Any) -> Any:
    settings = {"epochs": 12, "drop_epochs": [11], "drop_factor": 0.1, "warmup_iters": 0, "warmup_factor": 0.001}
    return ScheduleSettings.from_config({**settings, **changes})


@pytest.mark.parametrize("per_epoch", [1, 3, 7, 7393])
@pytest.mark.parametrize(("epochs", "drops"), [(12, [11]), (50, [40]), (36, [27, 33]), (3, [])])
def test_the_rate_drops_at_the_first_iteration_of_an_epoch(per_epoch: int, epochs: Any, drops: Any) -> None:
    factors = build_schedule(schedule(epochs=epochs, drop_epochs=drops), per_epoch)
    assert factors.max_iter == epochs * per_epoch
    near_epochs = {epoch * per_epoch + shift for epoch in range(epochs + 1) for shift in (-1, 0, 1)}
    for iteration in near_epochs & set(range(factors.max_iter)):
        passed = sum(iteration >= drop * per_epoch for drop in drops)
        assert factors(iteration) == pytest.approx(0.1**passed), iteration


def test_the_warm_up_rises_linearly_to_the_schedule() -> None:
    factors = build_schedule(schedule(epochs=2, drop_epochs=[1], warmup_iters=4, warmup_factor=0.2), 10)
    assert [factors(i) for i in (0, 1, 2, 3, 4, 9, 10)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 0.1])


def test_a_short_run_ends_before_the_drop() -> None:
    factors = build_schedule(schedule(epochs=0.1), 30)
    assert factors.max_iter == 3
    assert [factors(i) for i in range(3)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("change", [{"epochs": 0}, {"drop_epochs": [3, 2]}, {"warmup_iters": -1}, {"drop_epoch": [3]}])
def test_impossible_schedules_are_refused(change: Any) -> None:
    with pytest.raises(ConfigError, match="schedule"):
        schedule(**change)


def test_the_rate_of_every_group_follows_the_schedule(data: list[str], tmp_path: Path) -> None:
    from hdetr_d2.checkpoint import load_checkpoint
    from tests.engine.toy import run_in_process

    run_in_process(*data, f"train.output_dir={tmp_path}", "train.checkpoint.max_to_keep=3")
    for name, factor in (("model_0000006", 1.0), ("model_0000009", 0.1)):
        groups = load_checkpoint(tmp_path / f"{name}.pth")["trainer"]["optimizer"]["param_groups"]
        rates = {group["name"]: group["lr"] for group in groups}
        assert rates == pytest.approx({"backbone": 1e-3 * factor, "offsets": 1e-3 * factor, "default": 1e-2 * factor})


def flat_cosine(**changes: Any) -> Any:
    return schedule(epochs=60, drop_epochs=[], shape="flat_cosine", cosine_epochs=[34, 58], **changes)


def authors_flat_cosine(iteration: int, *, per_epoch: int, warmup: int) -> float:
    """DEIM's rule, written down from its paper and code."""
    if iteration <= warmup:
        return (iteration / warmup) ** 2
    if iteration <= 34 * per_epoch:
        return 1.0
    if iteration >= 58 * per_epoch:
        return 0.5
    return 0.5 + 0.5 * 0.5 * (1 + math.cos(math.pi * (iteration - 34 * per_epoch) / (24 * per_epoch)))


@pytest.mark.parametrize("per_epoch", [1, 7, 100, 7393])
def test_flat_cosine_is_deims(per_epoch: int) -> None:
    warmup = 2000 if per_epoch > 100 else 5
    factors = build_schedule(flat_cosine(warmup_iters=warmup, warmup_factor=0, warmup_power=2), per_epoch)
    end = 60 * per_epoch
    assert factors.max_iter == end
    near = {epoch * per_epoch + shift for epoch in (0, 34, 46, 58, 60) for shift in (-1, 0, 1)}
    for iteration in (near | set(range(0, end, max(1, end // 97))) | {warmup - 1, warmup}) & set(range(end)):
        expected = authors_flat_cosine(iteration, per_epoch=per_epoch, warmup=warmup)
        assert factors(iteration) == pytest.approx(expected, rel=1e-9, abs=1e-12), iteration
    assert factors(46 * per_epoch) == pytest.approx(0.75)


def test_a_schedule_without_drops_is_constant() -> None:
    factors = build_schedule(schedule(epochs=72, drop_epochs=[], warmup_iters=2000, warmup_factor=0), 7393)
    assert [factors(i) for i in (0, 500, 1999, 2000, 100_000, 72 * 7393 - 1)] == [0, 0.25, 1999 / 2000, 1, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": "cosine"}, "step, flat_cosine"),
        ({"cosine_epochs": [1, 2]}, 'needs schedule.shape="flat_cosine"'),
        ({"shape": "flat_cosine", "cosine_epochs": [1, 2]}, r"drop_epochs=\[\]"),
        ({"shape": "flat_cosine", "drop_epochs": [], "cosine_epochs": [2, 1]}, "cosine_epochs"),
        ({"shape": "flat_cosine", "drop_epochs": []}, "cosine_epochs"),
        ({"warmup_power": 0}, "warmup_power"),
    ],
)
def test_schedules_that_contradict_themselves_are_refused(change: Any, message: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        schedule(**change)


class Detector(nn.Module):
    """Parts with the names of a real-time DETR."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.encoder = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.decoder = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2), "after": nn.LayerNorm(4)})


def groups_of(model: Any, rules: Any) -> Any:
    groups = get_param_groups(model, base_lr=1.0, weight_decay=0.5, rules=rules)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]
    }


def test_decay_can_be_off_for_the_norms_and_biases_of_a_part() -> None:
    parts = {"pattern": "^(encoder|decoder)", "kinds": ["norm", "bias"], "weight_decay_factor": 0.0}
    rules = [{"name": "rest", **parts}, {"name": "backbone", "contains": ["backbone."], "lr_factor": 0.1}]
    found = groups_of(Detector(), rules)
    assert {name for name, (_, decay) in found.items() if decay == 0} == {
        "encoder.0.bias", "encoder.1.weight", "encoder.1.bias", "decoder.attention.in_proj_bias",
        "decoder.attention.out_proj.bias", "decoder.after.weight", "decoder.after.bias",
    }  # fmt: skip
    assert {name for name, (rate, _) in found.items() if rate == 0.1} == {
        f"backbone.{index}.{kind}" for index in (0, 1) for kind in ("weight", "bias")
    }


def test_norms_are_known_by_what_they_are_and_not_by_their_names() -> None:
    found = groups_of(Detector(), [{"name": "norms", "kinds": ["norm"], "weight_decay_factor": 0.0}])
    assert {name.rsplit(".", 1)[0] for name, (_, decay) in found.items() if decay == 0} == {
        "backbone.1", "encoder.1", "decoder.after"
    }  # fmt: skip


def test_deims_groups_can_be_written() -> None:
    # all norms without decay and, those of the backbone too, at the full rate
    rules = [
        {"name": "norms", "kinds": ["norm"], "lr_factor": 1.0, "weight_decay_factor": 0.0},
        {"name": "backbone", "contains": ["backbone."], "lr_factor": 0.1},
    ]
    found = groups_of(Detector(), rules)
    assert found["backbone.0.weight"] == found["backbone.0.bias"] == (0.1, 0.5)
    assert found["backbone.1.weight"] == found["encoder.1.bias"] == (1.0, 0.0)
    assert found["encoder.0.bias"] == (1.0, 0.5)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"lr_factor": 0.1}, "contains, pattern or kinds"),
        ({"kinds": ["embedding"], "lr_factor": 0.1}, "kinds are norm, bias"),
        ({"kinds": "norm", "lr_factor": 0.1}, "kinds must be a list"),
        ({"pattern": "(", "lr_factor": 0.1}, "no regular expression"),
        ({"contains": ["x"]}, "neither lr_factor nor weight_decay_factor"),
    ],
)
def test_rules_that_say_nothing_are_refused(rule: Any, message: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        ParamRule(name="rule", **rule)


def adamw(model: Model, *, weight_decay: float, betas: tuple[float, float], rules: list[dict[str, Any]]) -> AdamW:
    groups = get_param_groups(model, base_lr=1e-3, weight_decay=weight_decay, rules=rules)
    return AdamW(groups, lr=1e-3, betas=betas, weight_decay=weight_decay)


def stepped(model: Model, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


def test_a_resumed_optimiser_keeps_its_moments_and_takes_the_config_s_decay_and_betas() -> None:
    model = Model()
    state = stepped(model, adamw(model, weight_decay=1e-4, betas=(0.9, 0.999), rules=RULES))
    resumed = adamw(model, weight_decay=0.05, betas=(0.5, 0.9), rules=RULES)
    load_optimizer_state(resumed, state)
    assert [(group["weight_decay"], group["betas"]) for group in resumed.param_groups] == [(0.05, (0.5, 0.9))] * 3
    moments = [entry["exp_avg"] for entry in resumed.state_dict()["state"].values()]
    assert moments
    assert all(bool((moment == 0.1).all()) for moment in moments)
    assert state["param_groups"][0]["weight_decay"] == 1e-4  # the checkpoint's own is not written to


def test_a_state_of_other_groups_or_of_another_optimiser_is_refused() -> None:
    model = Model()
    state = stepped(model, adamw(model, weight_decay=1e-4, betas=(0.9, 0.999), rules=RULES))
    renamed = [dict(RULES[0], name="body"), RULES[1]]
    with pytest.raises(ValueError, match=r'"backbone", now it is "body".*optimizer\.params\.rules'):
        load_optimizer_state(adamw(model, weight_decay=1e-4, betas=(0.9, 0.999), rules=renamed), state)
    with pytest.raises(ValueError, match="group"):
        load_optimizer_state(adamw(model, weight_decay=1e-4, betas=(0.9, 0.999), rules=RULES[:1]), state)
    groups = get_param_groups(model, base_lr=1e-3, weight_decay=0.0, rules=RULES)
    with pytest.raises(ValueError, match="no SGD"):
        load_optimizer_state(torch.optim.SGD(groups, lr=1e-3, momentum=0.9), state)


Optim = torch.optim


@pytest.mark.parametrize(
    ("before", "now", "lacking"),
    [
        ((Optim.AdamW, {}), (Optim.AdamW, {"amsgrad": True}), "max_exp_avg_sq"),
        ((Optim.AdamW, {}), (Optim.NAdam, {}), "mu_product"),
        ((Optim.RMSprop, {}), (Optim.RMSprop, {"centered": True}), "grad_avg"),
        ((Optim.AdamW, {}), (Optim.SGD, {}), "nothing"),
        ((Optim.AdamW, {"amsgrad": True}), (Optim.AdamW, {}), ""),
        ((Optim.SGD, {}), (Optim.SGD, {"momentum": 0.9}), ""),
        ((Optim.AdamW, {}), (Optim.Adam, {}), ""),
    ],
)
def test_a_state_serves_an_optimiser_that_keeps_no_more_of_a_parameter(before: Any, now: Any, lacking: str) -> None:
    model = Model()
    kind, options = before
    state = stepped(model, kind(get_param_groups(model, base_lr=0.1, weight_decay=0.1), lr=0.1, **options))
    kind, options = now
    resumed = kind(get_param_groups(model, base_lr=0.1, weight_decay=0.1), lr=0.1, **options)
    with pytest.raises(ValueError, match=rf"{lacking}.*set optimizer back") if lacking else nullcontext():
        load_optimizer_state(resumed, state)
        stepped(model, resumed)


def test_a_state_of_an_earlier_torch_lacks_options_that_are_taken_from_the_config() -> None:
    model = Model()
    state = stepped(model, adamw(model, weight_decay=1e-4, betas=(0.9, 0.999), rules=RULES))
    for group in state["param_groups"]:
        for name in ("decoupled_weight_decay", "fused", "foreach"):
            group.pop(name, None)
    resumed = adamw(model, weight_decay=1e-4, betas=(0.9, 0.999), rules=RULES)
    load_optimizer_state(resumed, state)
    stepped(model, resumed)
