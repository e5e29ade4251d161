"""What fine-tuning chooses: what follows from the data, and what the user has said."""

from __future__ import annotations

import math
from typing import Any

import pytest
from omegaconf import DictConfig

from hdetr_d2.engine.config import load, run_length, schedule_settings, train_settings
from hdetr_d2.engine.overrides import apply_overrides, parse_override
from hdetr_d2.finetune.choices import Choice, DataFacts, Machine, Recipe, choose, table

CPU = Machine(processes=1, cores=4, gpu_memory=None)
GPU = Machine(processes=1, cores=16, gpu_memory=80.0)
RECIPES = (
    "h_deformable_detr_r50_12ep",
    "rtdetrv2_r18_120ep",
    "detr_r50_150ep",
    "h_deformable_detr_r50_two_stage_lvis_24ep",
)


def facts(images: int, side: int = 480) -> DataFacts:
    return DataFacts(num_images=images, num_validation=10, short_side=side)


def chosen(
    config: str, data: DataFacts, *overrides: str, machine: Machine = CPU, weights: bool = True
) -> tuple[DictConfig, dict[str, Choice]]:
    cfg = load(config)
    recipe = Recipe.of(cfg)
    cfg = apply_overrides(cfg, list(overrides))
    given = [parse_override(text).key for text in overrides]
    choices = choose(cfg, data, machine, recipe=recipe, given=given, has_weights=weights)
    return cfg, {each.key: each for each in choices}


def a_dense_recipe() -> str:
    from hdetr_d2.model_zoo import config_names

    return next(name for name in config_names() if name.startswith("deim/"))


def names() -> list[str]:
    from hdetr_d2.model_zoo import config_names

    known = config_names()
    found = [next((name for name in known if recipe in name), "") for recipe in RECIPES]
    return [name for name in [*found, a_dense_recipe()] if name]


@pytest.mark.parametrize("images", [2, 20, 300, 5_000, 200_000])
@pytest.mark.parametrize("config", names())
def test_every_recipe_gets_settings_that_are_allowed(config: str, images: int) -> None:
    for machine, weights in ((CPU, True), (GPU, False)):
        cfg, _ = chosen(config, facts(images), machine=machine, weights=weights)
        length = run_length(cfg, images)
        settings, schedule = train_settings(cfg), schedule_settings(cfg)
        assert schedule.warmup_iters <= length.max_iter / 10
        assert all(0 < epoch <= schedule.epochs for epoch in (*schedule.drop_epochs, *schedule.cosine_epochs))
        assert length.max_iter >= (1 if images < 3 else 500)
        assert settings.best_metric.startswith("ema/") == (settings.ema is not None)
        assert math.ceil(length.max_iter / length.eval_period) <= 21


def test_few_images_are_shown_more_often() -> None:
    epochs = [chosen(RECIPES[0], facts(images))[0].schedule.epochs for images in (20, 300, 3_000, 100_000)]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[0] > 10 * epochs[-1]


def test_a_model_that_starts_from_nothing_trains_longer() -> None:
    with_weights, without = (chosen(RECIPES[0], facts(1000), weights=weights)[0] for weights in (True, False))
    assert without.schedule.epochs > 2 * with_weights.schedule.epochs


@pytest.mark.parametrize(("side", "expected"), [(480, 800), (2000, 800), (240, 416), (12, 32)])
def test_images_are_enlarged_as_coco_is_and_no_further_than_the_recipe(side: int, expected: int) -> None:
    assert chosen(RECIPES[0], facts(100, side))[0].dataset.short_side == expected


def test_lengths_that_a_recipe_writes_out_follow_the_size() -> None:
    cfg, _ = chosen("quickstart/h_deformable_detr_generated", facts(100, 36))
    assert cfg.dataset.short_side == 64
    assert cfg.dataloader.train.mapper.augmentations.scales == [64]


def test_the_rate_follows_the_batch() -> None:
    cfg, choices = chosen(RECIPES[0], facts(20))
    assert cfg.train.batch_size == 2
    assert cfg.optimizer.lr == pytest.approx(2e-4 * math.sqrt(2 / 16), rel=1e-2)
    assert "batches" in choices["optimizer.lr"].why
    cfg, _ = chosen(RECIPES[0], facts(20_000), machine=GPU)
    assert cfg.train.batch_size == 16
    assert cfg.optimizer.lr == 2e-4
    cfg, _ = chosen(RECIPES[0], facts(20_000), "train.batch_size=4", machine=GPU)
    assert cfg.optimizer.lr == pytest.approx(1e-4)


def test_a_batch_can_be_shared_by_the_processes() -> None:
    machine = Machine(processes=3, cores=3, gpu_memory=None)
    for images in (2, 20, 1000):
        assert chosen(RECIPES[0], facts(images), machine=machine)[0].train.batch_size % 3 == 0


GIVEN: dict[str, Any] = {
    "dataset.short_side=333": 333, "train.batch_size=5": 5, "optimizer.lr=0.125": 0.125, "schedule.epochs=7": 7,
    "schedule.warmup_iters=3": 3, "train.eval_period_epochs=4": 4, "train.log_period=9": 9,
    "dataloader.num_workers=1": 1, "train.ema=null": None, "train.early_stopping=null": None,
}  # fmt: skip


@pytest.mark.parametrize("override", GIVEN)
def test_what_the_user_says_is_not_chosen(override: str) -> None:
    key = override.partition("=")[0]
    cfg, choices = chosen(RECIPES[0], facts(500), override)
    assert choices[key].value == GIVEN[override]
    assert choices[key].why == "as you say"
    node: Any = cfg
    for name in key.split("."):
        node = node[name]
    assert node == GIVEN[override]


def test_a_part_of_a_setting_is_the_users_setting() -> None:
    cfg, _ = chosen(RECIPES[0], facts(500), "train.ema={decay: 0.5}")
    assert dict(cfg.train.ema) == {"decay": 0.5}
    assert cfg.train.best_metric == "ema/bbox/AP"
    cfg, _choices = chosen(RECIPES[0], facts(500), "train.best_metric=bbox/AP50")
    assert cfg.train.best_metric == "bbox/AP50"
    assert train_settings(cfg).ema is None


def test_a_short_run_has_neither_average_nor_early_end() -> None:
    cfg, _ = chosen(RECIPES[0], facts(20), "schedule.epochs=1")
    assert cfg.train.ema is None
    assert cfg.train.early_stopping is None
    assert cfg.train.best_metric == "bbox/AP"


def test_epochs_of_augmentation_keep_their_part_of_the_run() -> None:
    before = load(a_dense_recipe())
    cfg, _ = chosen(a_dense_recipe(), facts(1000))
    ratio = cfg.schedule.epochs / before.schedule.epochs
    assert ratio != 1
    assert cfg.dataloader.train.mapper.mosaic.epochs == pytest.approx(
        [value * ratio for value in before.dataloader.train.mapper.mosaic.epochs], rel=1e-4
    )


def test_the_table_names_every_setting_with_its_reason() -> None:
    _, choices = chosen(RECIPES[0], facts(500))
    shown = table(list(choices.values()))
    assert all(key in shown for key in choices)
    assert all(each.why for each in choices.values())
