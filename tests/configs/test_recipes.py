"""Every recipe under configs/: loads, takes overrides, is saved and reloaded, and builds a model that runs."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from hdetr_d2.checkpoint.backbones import backbone_from_torchvision
from hdetr_d2.compat import load_config, save_config
from hdetr_d2.engine.config import ROOT_KEYS, load
from hdetr_d2.engine.run import build_optimizer
from hdetr_d2.model_zoo import config_names, config_path, get_config
from hdetr_d2.modeling import TimmBackbone

RECIPES = config_names()
DETRS = [recipe for recipe in RECIPES if not recipe.startswith("stewart/")]
CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = [
    "dataset.num_classes=7",
    "model.transformer.encoder.num_layers=1",
    "model.transformer.encoder.layer.hidden_dim=32",
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


def shrink(config: DictConfig) -> None:
    """A backbone of a few thousand parameters; what else is small stands in ``SMALL``."""
    features = list(config.model.backbone.out_features)
    channels = [8, 16, 24, 32]
    config.model.backbone = L(TimmBackbone)(
        name="resnet10t", out_features=features, model_args={"channels": channels, "stem_width": 8}
    )
    config.model.neck.in_channels = channels[-len(features) :]


def in_order(config: DictConfig) -> str:
    """As ``plain``, as text that also tells the order of keys."""
    return json.dumps(plain(config), default=str)


@pytest.fixture(scope="module")
def configs() -> dict[str, DictConfig]:
    """Every recipe, loaded once; not to be changed."""
    return {recipe: get_config(recipe) for recipe in RECIPES}


def test_there_are_recipes() -> None:
    assert "h_deformable_detr/h_deformable_detr_r50_12ep.py" in RECIPES
    on_disk = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.py")}
    assert set(RECIPES) == {name for name in on_disk if not name.startswith("common/")}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_defines_a_whole_run_and_nothing_else(recipe: str, configs: dict[str, DictConfig]) -> None:
    config = configs[recipe]
    assert set(ROOT_KEYS) == set(config)
    assert config.schedule.epochs > 0
    assert all(0 < epoch < config.schedule.epochs for epoch in config.schedule.drop_epochs)


def test_no_two_recipes_write_to_one_folder(configs: dict[str, DictConfig]) -> None:
    assert len({config.train.output_dir for config in configs.values()}) == len(RECIPES)


@pytest.mark.parametrize("recipe", DETRS)
def test_an_override_is_seen_everywhere(recipe: str) -> None:
    overrides = [
        "model.transformer.embed_dim=64",
        "model.transformer.num_levels=5",
        "model.transformer.decoder.num_layers=3",
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
    # Width and depth stand once.
    model, transformer = resolved["model"], resolved["model"]["transformer"]
    parts = ("encoder", "decoder", "query_source", "heads")
    assert {transformer[part]["embed_dim"] for part in parts} == {model["neck"]["out_channels"]} == {64}
    assert {transformer[part]["num_levels"] for part in parts[:2]} == {model["neck"]["num_levels"]} == {5}
    assert transformer["heads"]["num_layers"] == 3


@pytest.mark.parametrize("recipe", DETRS)
def test_a_recipe_saved_with_overrides_is_reloaded_equal_and_builds_a_model_that_runs(
    recipe: str, tmp_path: Path
) -> None:
    config = load(config_path(recipe), SMALL)
    shrink(config)
    path = tmp_path / "config.yaml"
    save_config(config, path)
    reloaded = load_config(path)
    assert in_order(reloaded) == in_order(config)
    assert plain(reloaded, resolve=True) == plain(config, resolve=True)
    assert "${" in path.read_text()  # still open to overrides

    with torch.no_grad():
        image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
        (output,) = instantiate(reloaded.model).eval()([{"image": image}])
    assert len(output["instances"]) == 9 * 7
    assert output["instances"].pred_classes.max() < 7


def test_a_reloaded_config_draws_the_same_weights(tmp_path: Path) -> None:
    config = load(config_path("h_deformable_detr/h_deformable_detr_r50_12ep.py"), SMALL)
    shrink(config)
    save_config(config, tmp_path / "config.yaml")
    states = []
    for source in (config, load_config(tmp_path / "config.yaml")):
        torch.manual_seed(0)
        states.append(instantiate(source.model).state_dict())
    assert states[0].keys() == states[1].keys()
    # The order of the keys in the file is the order in which weights are drawn.
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_the_backbone_of_every_recipe_fits_its_neck(configs: dict[str, DictConfig]) -> None:
    models = {}
    for config in (configs[recipe] for recipe in DETRS):
        nodes = [plain(config.model[part], resolve=True) for part in ("backbone", "neck")]
        models[json.dumps(nodes, default=str)] = OmegaConf.create(nodes, flags={"allow_objects": True})
    assert len(models) >= 8
    for nodes in models.values():
        with torch.device("meta"):
            backbone, neck = instantiate(nodes[0]), instantiate(nodes[1])
        shapes = backbone.output_shape()
        maps = neck({name: torch.empty(1, shape.channels, 4, 4, device="meta") for name, shape in shapes.items()})
        assert len(maps) == neck.num_levels
        assert [shapes[name].stride for name in neck.in_features] == [8, 16, 32][-len(shapes) :]


@pytest.mark.parametrize("depth", [50, 101])
def test_torchvisions_weights_of_a_resnet_are_all_that_the_backbone_has(depth: int) -> None:
    config = get_config(f"h_deformable_detr_r{depth}_12ep")
    with torch.device("meta"):
        backbone = instantiate(config.model.backbone)
        classifier = getattr(torchvision.models, f"resnet{depth}")()
    converted = backbone_from_torchvision(classifier.state_dict()).state
    expected = {f"backbone.{key}": value.shape for key, value in backbone.state_dict().items()}
    assert {key: value.shape for key, value in converted.items()} == expected


@pytest.mark.parametrize(
    "recipe",
    ["h_deformable_detr/h_deformable_detr_r50_12ep.py", "h_deformable_detr/swin/h_deformable_detr_swin_tiny_12ep.py"],
)
def test_a_recipe_with_its_own_backbone_trains_a_step(recipe: str, draw_batch: Any) -> None:
    config = load(config_path(recipe), [*SMALL, "model.supervision.num_queries=12"])
    model = instantiate(config.model).train()
    optimizer = build_optimizer(config, model)
    losses = model(draw_batch((96, 128, 3)))
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    head = model.transformer.heads.class_embed[0].weight.detach().clone()
    optimizer.step()
    assert not torch.equal(model.transformer.heads.class_embed[0].weight, head)
    # Whatever is trained takes part in the loss, as distributed training needs it.
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, p in model.named_parameters() if p.requires_grad}
    # All of Swin is trained; of ResNets the stem and the first stage are not.
    frozen = {name.split(".")[1] for name in dict(model.named_parameters()).keys() - with_gradient}
    assert frozen == (set() if "swin" in recipe else {"stem", "res2"})


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
