"""Every kind of file: round trips, options with other values, and options that nothing may ignore."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from hdetr_d2.parity import ParityError
from hdetr_d2.parity.archive import Archive
from hdetr_d2.parity.kinds import KINDS, kind_of
from hdetr_d2.parity.options import DESCRIPTIVE

from .conftest import SHARED
from .synthetic import CONFIGS, changed, leaves, write

Run = Callable[..., tuple[int, list[str]]]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_of_our_own_model_is_reproduced(check: Run, tmp_path: Path, name: str) -> None:
    status, lines = check(write(tmp_path / "own.npz", CONFIGS[name]))
    assert status == 0, [line for line in lines if "ok  " not in line]
    for quantity in ("train/one2one/boxes", "loss_total", "eval/post/0/labels", "grad_norm/"):
        assert any(quantity in line for line in lines)


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("h_detr", {"num_queries_one2many": 0, "mixed_selection": False, "look_forward_twice": False}),
    ("h_detr", {"two_stage": False, "with_box_refine": False, "look_forward_twice": False, "num_classes": 5}),
    ("detr", {"eos_coef": 0.05, "pre_norm": True, "dec_layers": 3, "activation": "gelu"}),
    ("dab_detr", {"pre_norm": True, "keep_query_pos": True, "query_scale_type": "cond_scalar", "num_patterns": 2}),
    ("dab_detr", {"modulate_hw_attn": False, "query_scale_type": "fix_elewise", "bbox_embed_diff_each_layer": True}),
    (
        "dn_detr",
        {"dn_groups": 1, "label_noise_scale": 0.0, "box_noise_scale": 0.0, "num_patterns": 2},
    ),
    ("dab_deformable_detr", {"with_box_refine": False, "num_patterns": 2, "num_feature_levels": 2}),
    ("dino", {"dec_pred_class_embed_share": False, "embed_init_tgt": False, "mixed_selection": False}),
    ("dino", {"two_stage_class_embed_share": True, "use_detached_boxes_dec_out": True, "look_forward_twice": False}),
    ("dino", {"two_stage": False, "dn_number": 60, "dn_labelbook_size": 3}),
    ("ms_detr", {"use_aux_ffn": False, "use_indices_merge": True}),
    ("ms_detr", {"use_ms_detr": False}),
    ("ms_detr", {"use_anchors_enc_match": False, "enc_match": "predicted boxes, cost 2/5/2", "mixed_selection": False}),
    ("rtdetr", {"learn_query_content": True, "eval_idx": 0, "eps": 1e-4, "num_levels": 2, "num_denoising": 0}),
    ("rtdetr", {"use_encoder_idx": [0, 1], "losses": ["bce", "boxes"], "weight_dict": {"loss_bce": 3, "loss_bbox": 5}}),
    ("rtdetr", {"label_noise_ratio": 0, "use_encoder_idx": []}),
    ("rtdetrv2", {"query_select_method": "one2many", "num_points": [1, 2, 3], "boxes_weight_format": "giou"}),
    ("rtdetrv2", {"share_matched_indices": True, "cross_attn_method": "discrete", "losses": ["focal", "boxes"]}),
    ("deim", {"mal_alpha": 0.5, "query_pos_method": "default", "mlp_act": "relu"}),
    ("dfine", {"decoder": {"num_layers": 3, "eval_idx": 0, "layer_scale": 1.5, "num_points": 2, "num_levels": 3}}),
    (
        "relation_detr",
        {"mixed_selection": False, "query_scale": False, "memory_fusion": False, "hybrid_skips_relation": False},
    ),
    ("dfine", {"decoder": {"query_select_method": "one2many", "learn_query_content": True, "num_denoising": 0}}),
    ("dfine", {"criterion": {"losses": ["focal", "boxes"], "weight_dict": {"loss_focal": 1, "loss_giou": 2}}}),
    ("deim_dfine", {"criterion": {"use_uni_set": False, "losses": ["mal", "boxes"], "boxes_weight_format": "iou"}}),
]


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_file_with_other_options_is_reproduced(
    check: Run, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    status, lines = check(write(tmp_path / "own.npz", changed(CONFIGS[name], **options)))
    assert status == 0, [line for line in lines if "ok  " not in line]


@pytest.mark.parametrize("objects", [(0, 4), (0, 0)], ids=["one image", "all images"])
@pytest.mark.parametrize("name", ["h_detr", "detr", "dn_detr", "dino", "mr_detr_dino", "rtdetrv2", "deim", "dfine"])
def test_images_without_objects_are_compared(check: Run, tmp_path: Path, name: str, objects: tuple[int, int]) -> None:
    config = changed(CONFIGS[name], ngt={"": list(objects)} if name == "dfine" else list(objects))
    status, lines = check(write(tmp_path / "own.npz", config, objects=objects))
    assert status == 0, [line for line in lines if "ok  " not in line]


@pytest.mark.parametrize("name", CONFIGS)
def test_an_option_that_is_not_known_is_refused_by_name(name: str) -> None:
    with pytest.raises(ParityError, match="aux_loss_of_mine"):
        kind_of(changed(CONFIGS[name], aux_loss_of_mine=True))


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("detr", {"dropout": 0.1}, "dropout"),
        ("detr", {"activation": "tanh"}, "activation"),
        ("detr", {"num_queries": "12"}, "num_queries"),
        ("h_detr", {"with_box_refine": False}, "look_forward_twice"),
        ("dn_detr", {"use_dn": False}, "use_dn"),
        ("dn_deformable_detr", {"num_patterns": 2}, "num_patterns"),
        ("dino", {"topk": 11}, "topk"),
        ("dino", {"query_sine_temperature": 20}, "query_sine_temperature"),
        ("ms_detr", {"two_stage": False}, "two_stage"),
        ("mr_detr", {"routes": ["o2o"]}, "routes"),
        ("mr_detr", {"o2m_loss_divisor": "M"}, "o2m_loss_divisor"),
        ("rtdetrv2", {"box_noise_scale": 0}, "box_noise_scale"),
        ("deim", {"use_uni_set": True}, "use_uni_set"),
        ("dfine", {"decoder": {"feat_strides": [8, 32]}}, "feat_strides"),
        ("relation_detr", {"two_stage_binary_cls": True}, "two_stage_binary_cls"),
        ("relation_detr", {"aux_loss_factor": 0.5}, r"loss_weights\.loss_class_0"),
        ("dfine", {"encoder": {"version": "dfine"}}, "version"),
        ("deim_dfine", {"criterion": {"use_uni_set": False}}, "use_uni_set"),
    ],
)
def test_a_value_that_cannot_be_built_is_refused_by_name(name: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ParityError, match=named):
        node_of(changed(CONFIGS[name], **options))


def test_options_that_contradict_the_arrays_are_refused_by_name(check: Run, tmp_path: Path) -> None:
    for name, option, value in (
        ("dino", "dn_num_groups", 7),
        ("dino", "ngt", [3, 2]),
        ("dino", "sizes", [[64, 96], [64, 80]]),
        ("dino", "frame", [64, 64]),
        ("detr", "strides", [16]),
        ("rtdetr", "strides", [8, 32]),
        ("rtdetr", "ngt", [3, 2]),
        ("rtdetr", "frames", {"rect/": [64, 96]}),
    ):
        config = CONFIGS[name]
        path = write(tmp_path / "own.npz", config)
        with np.load(path) as archive:
            arrays = dict(archive)
        arrays["dn/num_groups"] = np.array(4)
        arrays["config.json"] = np.frombuffer(json.dumps({**config, option: value}).encode(), dtype=np.uint8)
        np.savez(path, **arrays)
        status, lines = check(path)
        assert status == 2, (option, lines)
        assert option in lines[-1] or option == "frames"


def node_of(config: dict[str, Any]) -> str:
    """What a config is built as."""
    kind, options = kind_of(config)
    assert kind.file is not None
    file = kind.file(Archive({}), options)
    weights = file.loss_weights()
    return str(OmegaConf.to_yaml(file.node())) + json.dumps(weights and dict(weights)) + str(file.original_size)


# Read where a file is compared, and not where its model is built.
_COMPARED = {"ngt", "frame", "frames", "sizes", "image_sizes", "strides", "bn_mode", "dn_num_groups", "variants"}
# Of parts that a file does not have.
_UNUSED = {
    "h_detr": {"focal_alpha"},
    "deformable_detr_two_stage": {"k_one2many", "lambda_one2many"},
    "rtdetr": {"weight_dict.loss_mal"},
    "rtdetrv2": {"weight_dict.loss_mal"},
    "deim": {"alpha", "share_matched_indices", "weight_dict.loss_vfl"},
    "deim_rtdetrv2": {"alpha", "share_matched_indices"},
    # the code passes a number of its own in place of the first, and D-FINE its encoder's nowhere
    "dfine": {"decoder.box_noise_scale", "encoder.act"},
    "deim_dfine": {"decoder.box_noise_scale", "criterion.alpha"},
}


def authors_configs() -> dict[str, dict[str, Any]]:
    """Options of the files of the authors' code, where they are."""
    configs = {}
    for path in [path for folder in (".", "family", "relatives") for path in sorted((SHARED / folder).glob("*.npz"))]:
        with np.load(path) as archive:
            config = json.loads(archive["config.json"].tobytes())
        kind = KINDS.get(config.get("model")) if "model" in config or path.parent == SHARED else None
        if kind is not None and kind.file is not None:
            configs[path.stem] = config
    return configs


ALL_CONFIGS = {**CONFIGS, **authors_configs()}


@pytest.mark.parametrize("name", ALL_CONFIGS)
def test_no_option_is_ignored(name: str) -> None:
    config = ALL_CONFIGS[name]
    built = node_of(config)
    known = kind_of(config)[0].options.no_effect.keys() | DESCRIPTIVE.keys() | _COMPARED
    ignored = []
    for path, value in leaves(config):
        label = ".".join(map(str, path))
        if path[0] in known or label in _UNUSED.get(name, ()):
            continue
        for other in others(value):
            if outcome(config, path, other) == built:
                ignored.append(f"{label}: {value} -> {other}")
    assert not ignored


def others(value: Any) -> list[Any]:
    """Other values for an option."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + max(1, abs(value))]
    if isinstance(value, float):
        return [value + 0.25]
    return ["another"]


def outcome(config: dict[str, Any], path: tuple[str | int, ...], value: Any) -> str:
    """What a config with one other value is built as, or why it is not."""
    other = copy.deepcopy(config)
    place: Any = other
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    try:
        return node_of(other)
    except ParityError as error:
        return str(error)
