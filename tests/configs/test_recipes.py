"""Every recipe under configs/: loads, takes overrides, is saved and reloaded, and builds a model that runs."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from hdetr_d2.checkpoint.names.backbones import backbone_from_torchvision
from hdetr_d2.compat import load_config, save_config
from hdetr_d2.engine.building import build_optimizer
from hdetr_d2.engine.config import ROOT_KEYS, load
from hdetr_d2.engine.errors import ConfigError
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
    "model.transformer.decoder.layer.hidden_dim=32",
    "model.transformer.query_source.num_queries=12",
]
WITHOUT_ENCODER = [text for text in SMALL if ".encoder." not in text]


def small(recipe: str) -> DictConfig:
    """A recipe whose model is tiny: few layers, queries and classes, and a backbone of a few thousand parameters."""
    try:
        config = load(config_path(recipe), SMALL)
    except ConfigError:
        config = load(config_path(recipe), WITHOUT_ENCODER)
        assert config.model.transformer.encoder is None
    shrink(config)
    if "image_counts" in config.dataset:
        config.dataset.image_counts = [30, 20, 10, 5, 3, 2, 1]  # otherwise read from the training json
    return config


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
    """A tiny backbone, and few extra queries; what else is small stands in ``SMALL``."""
    model = config.model
    features = list(model.backbone.out_features)
    channels = [8, 16, 24, 32]
    model.backbone = L(TimmBackbone)(
        name="resnet10t", out_features=features, model_args={"channels": channels, "stem_width": 8}
    )
    taken = channels[int(features[0][-1]) - 2 :][: len(features)]
    if "necks" in model.neck:
        model.neck.necks[0].update(in_channels=taken, out_channels=32, depth_mult=0.34)
        model.neck.necks[0].encoder.layer.hidden_dim = 32
    else:
        model.neck.in_channels = taken
    if "num_queries" in model.supervision and not OmegaConf.is_interpolation(model.supervision, "num_queries"):
        model.supervision.num_queries = 12
    if model.supervision.get("num_one2many_layers") is not None:
        model.supervision.num_one2many_layers = 1
    if model.transformer.decoder.get("num_eval_layers") is not None:
        model.transformer.decoder.num_eval_layers = 1


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


SEEN: set[tuple[str, str]] = set()


def is_new(test: str, *nodes: Any) -> bool:
    """Whether a test has not seen these nodes: many recipes differ by their schedule and folder alone."""
    text = json.dumps([plain(node) for node in nodes], default=str)
    for folder in re.findall(r"output/\w+", text):
        text = text.replace(folder, "output/")
    before = len(SEEN)
    SEEN.add((test, text))
    return len(SEEN) > before


@pytest.mark.parametrize("recipe", DETRS)
def test_an_override_is_seen_everywhere(recipe: str, configs: dict[str, DictConfig]) -> None:
    config = configs[recipe]
    if not is_new("override", config.model, config.dataset, config.dataloader):
        return
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
    assert loader["dataset"]["name"] == "mine_train"
    assert loader["dataset"]["json_file"] == "some.json"
    assert test_loader["dataset"]["name"] == resolved["dataloader"]["evaluator"]["dataset_name"] == "mine_val"
    assert resolved["dataloader"]["evaluator"]["output_dir"].startswith("elsewhere/")
    # Width and depth stand once.
    model, transformer = resolved["model"], resolved["model"]["transformer"]
    assert set(found(transformer, "embed_dim")) == {64}
    assert set(found(transformer, "num_levels")) == {5}
    assert transformer["heads"]["num_layers"] == 3
    mapper = model["neck"]["necks"][-1] if "necks" in model["neck"] else model["neck"]
    assert (mapper["out_channels"], mapper["num_levels"]) == (64, 5)


def found(node: Any, key: str) -> list[Any]:
    """All values of a key in a tree."""
    if isinstance(node, list):
        return [value for child in node for value in found(child, key)]
    if not isinstance(node, dict):
        return []
    here = [node[key]] if key in node else []
    return here + [value for child in node.values() for value in found(child, key)]


@pytest.mark.parametrize("recipe", DETRS)
def test_a_recipe_saved_with_overrides_is_reloaded_equal(
    recipe: str, configs: dict[str, DictConfig], tmp_path: Path
) -> None:
    config = configs[recipe]
    if not is_new("reload", config.model, config.dataset, config.dataloader, config.optimizer):
        return
    config = small(recipe)
    path = tmp_path / "config.yaml"
    save_config(config, path)
    reloaded = load_config(path)
    assert in_order(reloaded) == in_order(config)
    assert plain(reloaded, resolve=True) == plain(config, resolve=True)
    assert "${" in path.read_text()  # still open to overrides


@pytest.mark.parametrize("recipe", DETRS)
def test_the_model_of_a_recipe_trains_detects_and_is_loaded_again(
    recipe: str, configs: dict[str, DictConfig], draw_batch: Any
) -> None:
    if is_new("recipe's model", configs[recipe].model):
        config = small(recipe)
        if is_new("small model", config.model):
            exercise(config, draw_batch)


def exercise(config: DictConfig, draw_batch: Any) -> None:
    """A training step on objects and on none, inference, loading, and inference without the groups of training."""
    torch.manual_seed(0)
    model = instantiate(config.model).train()
    keys = None
    for images in ([(64, 96, 3), (96, 64, 1)], [(64, 96, 0), (64, 96, 0)]):
        losses = model(draw_batch(*images))
        sum(losses.values()).backward()
        assert all(value.isfinite() for value in losses.values())
        keys = keys or list(losses)
        assert list(losses) == keys
    batch = draw_batch((64, 96, 2))
    other = instantiate(config.model)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        (expected,), (result,) = model.eval()(batch), other.eval()(batch)
        model.transformer.query_source.specs = model.transformer.query_source.specs[:1]
        (alone,) = model(batch)
    detections = expected["instances"]
    patterns = config.model.transformer.query_source.get("num_patterns") or 1
    most = 12 * patterns * (1 if config.model.get("score") == "softmax" else 7)
    assert len(detections) == min(most, config.model.num_detections)
    assert detections.pred_classes.max() < 7
    for again in (result["instances"], alone["instances"]):
        assert torch.equal(detections.scores, again.scores)
        assert torch.equal(detections.pred_boxes.tensor, again.pred_boxes.tensor)


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
        sizes = {name: 64 // shape.stride for name, shape in shapes.items()}
        features = {
            name: torch.empty(2, shape.channels, sizes[name], sizes[name], device="meta")
            for name, shape in shapes.items()
        }
        maps = neck(features, (64, 64), [(64, 64), (64, 64)])
        assert len({tuple(feature.shape[:2]) for feature in maps}) == 1
        assert len(maps) >= len(features)


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
