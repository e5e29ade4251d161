"""Entries against the configs; the authors' file names say independently what a recipe must be."""

import math
import re

import pytest
from omegaconf import DictConfig

from hdetr_d2.losses import FederatedLoss
from hdetr_d2.model_zoo import Entry, config_names, config_path, entries, get_config
from hdetr_d2.supervision import HybridBranch, OneToOne

RELEASED = [entry for entry in entries().values() if entry.weights and "HDETR" in entry.weights.url]
OTHER_DATA = ("bccd/", "quickstart/", "stewart/")


def named(entry: Entry) -> str:
    return entry.name


def has_tricks(config: DictConfig) -> bool:
    transformer = config.model.transformer
    tricks = {
        bool(transformer.query_source.mixed),
        bool(transformer.decoder.look_forward_twice),
        transformer.encoder.layer.dropout == 0.0,
    }
    assert len(tricks) == 1  # released models have all of them or none
    return tricks.pop()


def test_the_entries_are_all_recipes_for_coco_and_lvis() -> None:
    recipes = [name for name in config_names() if not name.startswith(OTHER_DATA)]
    assert sorted(entry.config for entry in entries().values()) == recipes
    assert all((entry.num_classes == 1203) == entry.config.startswith("lvis/") for entry in entries().values())


def test_names_are_unique_and_lead_to_the_config() -> None:
    assert len({entry.name for entry in entries().values()}) == len(entries())
    for name, entry in entries().items():
        assert config_path(name) == config_path(entry.config)
    with pytest.raises(FileNotFoundError, match=r"no config 'h_deformable_detr_r50_13ep'; did you mean .*r50_12ep"):
        config_path("h_deformable_detr_r50_13ep")


def test_every_number_has_a_source_and_every_file_an_address() -> None:
    for entry in entries().values():
        projects = "H-DETR|H-DETR LVIS|Deformable DETR|RT-DETR|RT-DETRv2|DEIM|D-FINE|Relation-DETR"
        projects += r"|(Conditional |DAB-|DN-|DAC-|MS-|Mr\. )?DETR|DINO|detrex"
        sources = rf"H-DETR, table \d+|({projects}) repository(, script only)?|ours, not trained"
        assert re.fullmatch(sources, entry.source)
        assert (entry.ap is None) == entry.source.endswith(("script only", "not trained"))
        assert entry.ap is None or (39 if entry.num_classes == 80 else 32) < entry.ap < 60
        if entry.weights:
            assert entry.ap is not None
            assert entry.weights.url.startswith("https://")
            assert entry.weights.file.endswith(".pth")
            assert entry.weights.sha256 is None or re.fullmatch("[0-9a-f]{64}", entry.weights.sha256)


@pytest.mark.parametrize("entry", RELEASED, ids=named)
def test_a_recipe_is_what_the_name_of_its_released_file_says(entry: Entry) -> None:
    assert entry.weights
    file, config = entry.weights.file, get_config(entry.config)
    transformer, supervision = config.model.transformer, config.model.supervision
    assert entry.weights.url == f"https://github.com/HDETR/H-Deformable-DETR/releases/download/v0.1/{file}"
    assert file.endswith(f"_two_stage_{config.schedule.epochs}eps.pth")
    assert transformer.encoder.layer.hidden_dim == 2048
    assert transformer.decoder.refine
    assert has_tricks(config) == ("_dp0_mqs_lft_" in file)
    assert transformer.query_source.num_queries == (900 if "_n900_" in file else 300)
    assert config.optimizer.weight_decay == (0.05 if file.startswith("decay0.05_") else 1e-4)
    assert config.train.batch_size == 16
    if branch := re.search(r"hybrid_branch_lambda(\d+)_group(\d+)_t(\d+)_", file):
        assert supervision._target_ is HybridBranch
        assert (supervision.weight, supervision.k, supervision.num_queries) == tuple(map(int, branch.groups()))
    else:
        assert supervision._target_ is OneToOne
    if swin := re.search("swin_(tiny|large)_", file):
        backbone = config.model.backbone
        assert backbone.name.startswith(f"swin_{swin[1]}_patch4_window7_224.")
        assert backbone.model_args.drop_path_rate == (0.5 if "drop_path0.5_" in file else 0.2)
        assert backbone.output_norm
    else:
        assert file.startswith("r50_")
        assert config.model.backbone.stages.depth == 50


@pytest.mark.parametrize("name", [name for name in entries() if "/ablations/h_" in entries()[name].config])
def test_an_ablation_changes_what_its_name_says_and_nothing_else(name: str) -> None:
    found = re.fullmatch(r"h_deformable_detr_(k|t|lambda)(\d+)_r50_12ep", name)
    assert found
    kind, digits = found.groups()
    config, base = get_config(name), get_config("h_deformable_detr_r50_12ep")
    expected = dict(base.model.supervision)
    if kind == "k":
        expected.update(k=int(digits), num_queries=300 * int(digits))  # table 9: 300 queries for each of K
    elif kind == "t":
        expected.update(num_queries=int(digits))
    else:
        expected.update(weight=float(f"0.{digits[1:]}") if digits.startswith("0") else float(digits))
    assert dict(config.model.supervision) == expected != dict(base.model.supervision)
    config.model.supervision = base.model.supervision
    config.train.output_dir = base.train.output_dir
    assert config == base


@pytest.mark.parametrize(("epochs", "drop"), [(12, 11), (24, 20), (36, 30), (50, 40)])
def test_recipes_of_one_length_drop_the_rate_at_one_epoch(epochs: int, drop: int) -> None:
    schedules = [
        get_config(name).schedule
        for name, entry in entries().items()
        if name.endswith(f"_{epochs}ep")
        and (entry.num_classes == 80 or epochs == 12)
        and not entry.config.startswith(("rt_detr", "relation_detr"))  # one rate, and one epoch earlier
    ]
    assert schedules
    assert all((s.epochs, s.drop_epochs, s.drop_factor) == (epochs, [drop], 0.1) for s in schedules)


@pytest.mark.parametrize(("scheme", "num_queries"), [("branch", 300), ("epoch", 1800), ("layer", 1800)])
def test_schemes_are_compared_without_tricks_and_with_1800_queries_in_training(scheme: str, num_queries: int) -> None:
    config = get_config(f"hybrid_{scheme}_r50_12ep")
    assert not has_tricks(config)
    assert config.model.transformer.query_source.num_queries == num_queries
    assert num_queries + config.model.supervision.get("num_queries", 0) == 1800


LVIS = [entry for entry in entries().values() if entry.config.startswith("lvis/") and entry.ap is not None]


@pytest.mark.parametrize("entry", LVIS, ids=named)
def test_recipes_for_lvis_are_trained_as_published(entry: Entry) -> None:
    config = get_config(entry.config)
    steps_an_epoch = math.ceil(100_170 / config.train.batch_size)
    assert config.train.batch_size == (16 if "_r50_" in entry.name else 32)
    assert config.schedule.epochs * steps_an_epoch == pytest.approx(180_000, rel=1e-3)
    assert [epoch * steps_an_epoch for epoch in config.schedule.drop_epochs] == pytest.approx([150_000], rel=1e-3)
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (2e-4, 1e-4)
    assert config.train.clip_grad.max_norm == 0.01
    assert config.dataloader.train.sampling.threshold == 0.001
    assert config.dataloader.train.sampling.sqrt
    assert config.model.num_detections == config.dataloader.evaluator.max_dets_per_image == 300
    transformer, loss = config.model.transformer, config.model.criterion.classification
    assert transformer.query_source.num_queries == 300
    assert has_tricks(config)
    assert transformer.encoder.layer.hidden_dim == (1024 if "_ffn1024_" in entry.name else 2048)
    assert transformer.heads.encoder_classes == 1
    assert loss._target_ is FederatedLoss
    assert (loss.num_chosen, loss.power) == (50, 0.5)
    if entry.name.startswith("h_"):
        scheme = config.model.supervision
        assert (scheme._target_, scheme.num_queries, scheme.k, scheme.weight) == (HybridBranch, 900, 5, 1.0)
    else:
        assert config.model.supervision._target_ is OneToOne
    if "swin" in entry.name:
        backbone = config.model.backbone
        size = "base" if "swin_base" in entry.name else "large"
        assert backbone.name == f"swin_{size}_patch4_window7_224.ms_in22k"
        assert backbone.model_args.drop_path_rate == 0.3


def test_the_recipe_for_24_gb_makes_the_steps_of_the_published_one() -> None:
    small, whole = (get_config(f"h_deformable_detr_lvis_{kind}r50_24ep") for kind in ("24gb_", ""))
    assert small.train.accumulate == 4
    assert small.train.precision == "bf16"
    for config in (small, whole):
        config.train.update(accumulate=1, precision="fp32", output_dir="")
    assert small == whole


RTDETR_FILES = [entry for entry in entries().values() if entry.weights and "lyuwenyu" in entry.weights.url]


@pytest.mark.parametrize("entry", RTDETR_FILES, ids=named)
def test_a_recipe_of_rtdetr_is_what_the_name_of_its_released_file_says(entry: Entry) -> None:
    assert entry.weights
    assert entry.weights.origin == "rtdetr"
    file, config = entry.weights.file, get_config(entry.config)
    depth, medium = re.search(r"_r(\d+)vd(_m)?_", file).groups()
    decoder = config.model.transformer.decoder
    assert config.model.backbone.name == f"resnet{depth}d"
    assert (decoder.num_eval_layers == 3) is bool(medium)
    assert decoder.num_layers == {"18": 3, "34": 4}.get(depth, 6)
    assert decoder.layer.get("sampling", "bilinear") == ("discrete" if "_dsp_" in file else "bilinear")
    points = re.search(r"_sp(\d)_", file)
    assert decoder.layer.num_points == ([int(points[1])] * 3 if points else 4)
    epochs = re.search(r"_(\d+)(e|x)_coco", file)
    assert config.schedule.epochs == int(epochs[1]) * (1 if epochs[2] == "e" else 12)
    assert ("v2_" in file) is ("rt_detr_v2" in entry.config)


FINE_SIZES = {  # levels and layers of the decoder, width of the encoder; backbone
    "n": (2, 3, 128, "b0"),
    "s": (3, 3, 256, "b0"),
    "m": (3, 4, 256, "b2"),
    "l": (3, 6, 256, "b4"),
    "x": (3, 6, 384, "b5"),
}


@pytest.mark.parametrize("name", [name for name in entries() if "dfine_hgnetv2" in name])
def test_a_recipe_of_dfine_is_of_the_size_that_it_is_named_after(name: str) -> None:
    config, entry = get_config(name), entries()[name]
    size, epochs = re.fullmatch(r"(?:deim_)?dfine_hgnetv2_(\w)_(\d+)ep", name).groups()
    transformer = config.model.transformer
    hybrid = config.model.neck.necks[0]
    backbone = config.model.backbone.name.removeprefix("hgnetv2_").partition(".")[0]
    found = transformer.num_levels, transformer.decoder.num_layers, hybrid.out_channels, backbone
    assert found == FINE_SIZES[size]
    assert config.schedule.epochs == int(epochs)
    assert config.train.batch_size == (128 if size == "n" else 32)
    if entry.weights:
        assert entry.weights.file == f"dfine_{size}_coco.pth"
