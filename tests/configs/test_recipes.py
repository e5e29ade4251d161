"""Every recipe under configs/: loads, takes overrides, is saved and reloaded, and builds a model that runs."""

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from hdetr_d2.compat import load_config, save_config
from hdetr_d2.engine.config import ROOT_KEYS, load
from hdetr_d2.engine.run import build_optimizer
from hdetr_d2.model_zoo import config_names, config_path, get_config

RECIPES = config_names()
CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = [
    "dataset.num_classes=7",
    "model.transformer.encoder.num_layers=1",
    "model.transformer.encoder.hidden_dim=32",
    "model.transformer.decoder.num_layers=2",
    "model.transformer.query_source.num_queries=9",
]


def plain(config: Any, *, resolve: bool = False) -> Any:
    """A config as dicts and lists, and what is to be called as the thing itself: a file has the name of it only."""

    def located(node: Any) -> Any:
        if isinstance(node, dict):
            result = {key: located(value) for key, value in node.items()}
            if isinstance(result.get("_target_"), str):
                result["_target_"] = locate(result["_target_"])
            return result
        return [located(value) for value in node] if isinstance(node, list) else node

    return located(OmegaConf.to_container(config, resolve=resolve))


def built(config: DictConfig) -> torch.nn.Module:
    torch.manual_seed(0)
    return instantiate(config.model)


def test_there_are_recipes() -> None:
    assert "h_deformable_detr/h_deformable_detr_r50_12ep.py" in RECIPES
    on_disk = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.py")}
    assert set(RECIPES) == {name for name in on_disk if not name.startswith("common/")}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_defines_a_whole_run(recipe: str) -> None:
    config = get_config(recipe)
    assert set(ROOT_KEYS) <= set(config)
    assert config.schedule.epochs > 0
    assert all(0 < epoch < config.schedule.epochs for epoch in config.schedule.drop_epochs)


def test_no_two_recipes_write_to_one_folder() -> None:
    folders = [get_config(recipe).train.output_dir for recipe in RECIPES]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_override_is_seen_everywhere(recipe: str) -> None:
    overrides = [
        "dataset.num_classes=7",
        "dataset.name=mine",
        "dataset.train.json=some.json",
        "train.batch_size=6",
        "train.accumulate=3",
        "train.seed=5",
        "train.output_dir=elsewhere",
    ]
    config = load(config_path(recipe), overrides)
    resolved = plain(config, resolve=True)
    loader, test_loader = (resolved["dataloader"][part] for part in ("train", "test"))
    assert resolved["model"]["num_classes"] == resolved["model"]["transformer"]["heads"]["num_classes"] == 7
    assert loader["dataset"]["num_classes"] == test_loader["dataset"]["num_classes"] == 7
    assert (loader["batch_size"], loader["accumulate"], loader["seed"]) == (6, 3, 5)
    assert loader["dataset"]["name"] == "mine_train" and loader["dataset"]["json_file"] == "some.json"
    assert test_loader["dataset"]["name"] == resolved["dataloader"]["evaluator"]["dataset_name"] == "mine_val"
    assert resolved["dataloader"]["evaluator"]["output_dir"].startswith("elsewhere/")


@pytest.mark.parametrize("recipe", RECIPES)
def test_width_and_depth_stand_once(recipe: str) -> None:
    overrides = [
        "model.transformer.embed_dim=64",
        "model.transformer.num_levels=5",
        "model.transformer.decoder.num_layers=3",
    ]
    resolved = plain(load(config_path(recipe), ["dataset.num_classes=7", *overrides]), resolve=True)["model"]
    transformer = resolved["transformer"]
    parts = ("encoder", "decoder", "query_source", "heads")
    assert {transformer[part]["embed_dim"] for part in parts} == {resolved["neck"]["out_channels"]} == {64}
    assert {transformer[part]["num_levels"] for part in parts[:2]} == {resolved["neck"]["num_levels"]} == {5}
    assert transformer["heads"]["num_layers"] == 3


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_saved_with_overrides_is_reloaded_equal_and_builds_a_model_that_runs(
    recipe: str, tmp_path: Path
) -> None:
    config = load(config_path(recipe), SMALL)
    path = tmp_path / "config.yaml"
    save_config(config, path)
    reloaded = load_config(path)
    assert plain(reloaded) == plain(config)
    assert plain(reloaded, resolve=True) == plain(config, resolve=True)
    assert "${" in path.read_text()  # still open to overrides

    states = []
    for source in (config, reloaded):
        torch.manual_seed(0)
        model = built(source)
        states.append(model.state_dict())
    assert states[0].keys() == states[1].keys()
    # The order of the keys in the file is the order in which weights are drawn.
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    with torch.no_grad():
        (output,) = model.eval()([{"image": torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)}])
    assert len(output["instances"]) == 9 * 7
    assert output["instances"].pred_classes.max() < 7


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.py")), ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_a_config_file_has_no_lambda(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    assert nodes
    assert not [node.lineno for node in nodes if isinstance(node, ast.Lambda)]


def test_loading_a_recipe_gives_a_config_of_its_own() -> None:
    first = get_config(RECIPES[0])
    first.train.batch_size = 12345
    assert get_config(RECIPES[0]).train.batch_size != 12345


def test_the_optimiser_has_the_published_groups() -> None:
    config = get_config("h_deformable_detr/h_deformable_detr_r50_12ep.py")
    config.dataset.num_classes = 91
    with torch.device("meta"):
        model = instantiate(config.model)
    optimizer = build_optimizer(config, model)
    names = {id(p): name for name, p in model.named_parameters()}
    by_kind: dict[str, int] = {}
    for group in optimizer.param_groups:
        assert group["weight_decay"] == 1e-4
        for p in group["params"]:
            name = names[id(p)]
            kind = "backbone" if name.startswith("backbone.") else "offsets" if "sampling_offsets" in name else "main"
            assert group["lr"] == pytest.approx(2e-4 if kind == "main" else 2e-5)
            by_kind[kind] = by_kind.get(kind, 0) + p.numel()
    assert by_kind == {"main": 23_701_657, "backbone": 23_232_512, "offsets": 789_504}
