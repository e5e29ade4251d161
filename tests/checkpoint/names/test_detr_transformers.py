"""DETR, Conditional DETR and DAB-DETR of the pip package beside ours, with the same weights and the same pixels."""

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import instantiate

from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.checkpoint.convert import from_ours, to_ours
from hdetr_d2.model_zoo import get_config

from .test_deformable_detr import assert_equal
from .test_deformable_detr_transformers import NUM_LABELS, NUM_QUERIES, assert_the_same_outputs, perturb

transformers = pytest.importorskip("transformers")
MODELS = {
    "detr": ("Detr", "d_model"),
    "conditional_detr": ("ConditionalDetr", "d_model"),
    "dab_detr": ("DabDetr", "hidden_size"),
}


def build_theirs(name: str, *, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    prefix, width = MODELS[name]
    config = getattr(transformers, f"{prefix}Config")(
        encoder_layers=2,
        decoder_layers=3,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_queries=NUM_QUERIES,
        num_labels=NUM_LABELS,
        **{width: 32},
    )
    model = getattr(transformers, f"{prefix}ForObjectDetection")(config).eval()
    perturb(model)
    return model


def build_ours(name: str) -> torch.nn.Module:
    model = get_config(f"common/models/{name}.py").model
    transformer = model.transformer
    transformer.embed_dim = 32
    transformer.position_embedding.num_features = 16
    transformer.encoder.num_layers = 2
    transformer.encoder.layer.update(num_heads=4, hidden_dim=48)
    transformer.decoder.update(num_layers=3, eps=1e-5)
    transformer.query_source.num_queries = NUM_QUERIES
    model.num_classes = NUM_LABELS
    return instantiate(model).eval()


@pytest.mark.parametrize("name", MODELS)
def test_a_converted_model_gives_the_outputs_of_transformers(name: str) -> None:
    theirs, ours = build_theirs(name), build_ours(name)
    ours.load_state_dict(to_ours("transformers", {}, theirs.state_dict()).state)
    assert_the_same_outputs(theirs, ours, atol=2e-4)


@pytest.mark.parametrize("name", MODELS)
def test_a_file_holds_what_the_model_in_memory_does(tmp_path: Path, name: str) -> None:
    theirs = build_theirs(name)
    theirs.save_pretrained(tmp_path)
    filed = to_ours("transformers", {}, load_checkpoint(tmp_path / "model.safetensors")).state
    assert_equal(filed, to_ours("transformers", {}, theirs.state_dict()).state)


@pytest.mark.parametrize("name", MODELS)
def test_our_weights_load_into_transformers_and_come_back(name: str) -> None:
    ours = build_ours(name)
    perturb(ours)
    state = ours.state_dict()
    converted = from_ours("transformers", state)
    theirs = build_theirs(name)
    theirs, report = type(theirs).from_pretrained(
        None, config=theirs.config, state_dict=converted, output_loading_info=True
    )
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert not [key for key in report["missing_keys"] if "num_batches_tracked" not in key]
    assert_the_same_outputs(theirs.eval(), ours, atol=2e-4)
    assert_equal(to_ours("transformers", {}, converted).state, state)
