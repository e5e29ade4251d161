import pytest
from torch import nn

from hdetr_d2.engine import ConfigError, ParamRule, ScheduleSettings, build_schedule, get_param_groups
from hdetr_d2.engine.optim import describe_param_groups


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


def test_every_parameter_is_in_exactly_one_group_shared_ones_once():
    model = Model()
    groups = get_param_groups(model, base_lr=2e-4, weight_decay=1e-4, rules=RULES)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted({id(parameter) for parameter in model.parameters()})


def test_the_published_groups_have_their_rates():
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


def test_rules_for_rate_and_decay_combine():
    rules = [*RULES, ParamRule(name="no_decay", contains=["bias", "norm"], weight_decay_factor=0.0)]
    model = Model()
    groups = {group["name"]: group for group in get_param_groups(model, base_lr=1.0, weight_decay=0.5, rules=rules)}
    (bias,) = groups["backbone+no_decay"]["params"]
    assert bias is model.backbone.bias
    assert (groups["backbone+no_decay"]["lr"], groups["backbone+no_decay"]["weight_decay"]) == (0.1, 0.0)
    assert len(groups) == 6


def test_frozen_parameters_are_left_out():
    model = Model()
    model.backbone.requires_grad_(False)
    names = [group["name"] for group in get_param_groups(model, base_lr=1.0, weight_decay=0.0, rules=RULES)]
    assert sorted(names) == ["default", "offsets"]


def test_a_parameter_shared_across_rules_is_refused():
    model = Model()
    model.backbone.weight = model.heads[0].weight
    with pytest.raises(ConfigError, match=r"backbone\.weight.*heads\.0\.weight"):
        get_param_groups(model, base_lr=1.0, weight_decay=0.0, rules=RULES)


def test_the_table_counts_every_parameter():
    model = Model()
    table = describe_param_groups(get_param_groups(model, base_lr=1.0, weight_decay=0.0, rules=RULES))
    counts = [int(row.split("|")[3].replace(",", "")) for row in table.splitlines()[2:]]
    assert sum(counts) == sum(parameter.numel() for parameter in model.parameters())


def schedule(**changes):
    settings = {"epochs": 12, "drop_epochs": [11], "drop_factor": 0.1, "warmup_iters": 0, "warmup_factor": 0.001}
    return ScheduleSettings.from_config({**settings, **changes})


@pytest.mark.parametrize("per_epoch", [1, 3, 7, 7393])
@pytest.mark.parametrize(("epochs", "drops"), [(12, [11]), (50, [40]), (36, [27, 33]), (3, [])])
def test_the_rate_drops_at_the_first_iteration_of_an_epoch(per_epoch, epochs, drops):
    factors = build_schedule(schedule(epochs=epochs, drop_epochs=drops), per_epoch)
    assert factors.max_iter == epochs * per_epoch
    near_epochs = {epoch * per_epoch + shift for epoch in range(epochs + 1) for shift in (-1, 0, 1)}
    for iteration in near_epochs & set(range(factors.max_iter)):
        passed = sum(iteration >= drop * per_epoch for drop in drops)
        assert factors(iteration) == pytest.approx(0.1**passed), iteration


def test_the_warm_up_rises_linearly_to_the_schedule():
    factors = build_schedule(schedule(epochs=2, drop_epochs=[1], warmup_iters=4, warmup_factor=0.2), 10)
    assert [factors(i) for i in (0, 1, 2, 3, 4, 9, 10)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 0.1])


def test_a_short_run_ends_before_the_drop():
    factors = build_schedule(schedule(epochs=0.1), 30)
    assert factors.max_iter == 3
    assert [factors(i) for i in range(3)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("change", [{"epochs": 0}, {"drop_epochs": [3, 2]}, {"warmup_iters": -1}, {"drop_epoch": [3]}])
def test_impossible_schedules_are_refused(change):
    with pytest.raises(ConfigError, match="schedule"):
        schedule(**change)


def test_the_rate_of_every_group_follows_the_schedule(data, tmp_path):
    from hdetr_d2.checkpoint import load_checkpoint
    from tests.engine.toy import run_in_process

    run_in_process(*data, f"train.output_dir={tmp_path}", "train.checkpoint.max_to_keep=3")
    for name, factor in (("model_0000006", 1.0), ("model_0000009", 0.1)):
        groups = load_checkpoint(tmp_path / f"{name}.pth")["trainer"]["optimizer"]["param_groups"]
        rates = {group["name"]: group["lr"] for group in groups}
        assert rates == pytest.approx({"backbone": 1e-3 * factor, "offsets": 1e-3 * factor, "default": 1e-2 * factor})
