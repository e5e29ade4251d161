"""Freezing by name and the kinds of BatchNorm."""

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from hdetr_d2.checkpoint import load_checkpoint
from hdetr_d2.engine import ConfigError
from hdetr_d2.engine.freezing import freeze_batch_norms, freeze_parameters, synchronise_batch_norms
from tests.engine.toy import run_in_process


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3), BatchNormAct2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.heads = nn.ModuleList([self.body[3]] * 2)  # the last norm has three names

    def forward(self, images: Any) -> Any:
        return self.body(self.stem(images))


def trained(model: Any) -> Any:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def used(model: Any) -> Any:
    """``model`` with statistics and weights of its own."""
    torch.manual_seed(0)
    for _ in range(3):
        model.train()(torch.randn(2, 3, 9, 9) * 3 + 1)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def test_what_matches_is_not_trained_and_the_rest_is() -> None:
    model = Network()
    everything = trained(model)
    freeze_parameters(model, [r"^stem\.", r"body\.2\.bias"])
    assert everything - trained(model) == {
        "stem.0.weight",
        "stem.0.bias",
        "stem.1.weight",
        "stem.1.bias",
        "body.2.bias",
    }


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["stem", "transfomer"], r'train\.freeze: "transfomer" matches no parameter; names begin with body\.0, '),
        (["("], "no regular expression"),
        ([""], "leaves nothing to be trained"),
    ],
)
def test_a_name_that_freezes_nothing_or_everything_is_refused(patterns: Any, message: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        freeze_parameters(Network(), patterns)


def test_frozen_norms_compute_what_they_did_in_evaluation_and_keep_it() -> None:
    model = used(Network())
    images = torch.randn(2, 3, 9, 9)
    expected = model.eval()(images)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    freeze_batch_norms(model, ["^stem", r"^body"])
    torch.testing.assert_close(model.train()(images), expected)  # the activation of timm's norm is kept
    after = model.state_dict()
    assert {name for name in state if "num_batches" not in name} == set(after)
    assert all(torch.equal(after[name], state[name]) for name in after)
    assert not any("stem.1" in name or "body.1" in name or "body.3" in name for name in trained(model))
    assert model.heads[0] is model.heads[1] is model.body[3]
    fresh = Network()
    freeze_batch_norms(fresh, ["^stem", r"^body"])
    assert fresh.load_state_dict(state).missing_keys == []  # weights of a trained BatchNorm


def test_norms_can_be_frozen_by_name() -> None:
    model = Network()
    freeze_batch_norms(model, ["^stem"])
    assert not isinstance(model.stem[1], nn.BatchNorm2d)
    assert isinstance(model.body[3], nn.BatchNorm2d)
    with pytest.raises(ConfigError, match=r'train\.freeze_bn: "^backbone" matches no BatchNorm'.replace("^", r"\^")):
        freeze_batch_norms(model, ["^backbone"])


def test_one_process_has_nothing_to_synchronise_and_a_model_without_batch_norm_is_refused() -> None:
    model = Network()
    synchronise_batch_norms(model, device=torch.device("cpu"), world_size=1)
    assert type(model.stem[1]) is nn.BatchNorm2d
    with pytest.raises(ConfigError, match=r"train\.sync_bn=false"):
        synchronise_batch_norms(nn.Linear(2, 2), device=torch.device("cpu"), world_size=1)


def test_on_gpus_pytorchs_own_takes_the_place_with_the_same_names() -> None:
    model = used(Network())
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    synchronise_batch_norms(model, device=torch.device("cuda"), world_size=2)
    assert all(isinstance(m, nn.SyncBatchNorm) for m in (model.stem[1], model.body[1], model.body[3]))
    assert model.heads[0] is model.body[3]
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_on_the_cpu_a_norm_with_an_activation_is_refused() -> None:
    with pytest.raises(ConfigError, match="BatchNormAct2d"):
        synchronise_batch_norms(Network(), device=torch.device("cpu"), world_size=2)


def test_a_run_leaves_frozen_weights_as_they_were(data: list[str], tmp_path: Path) -> None:
    run_in_process(*data, r"train.freeze=['^backbone\.']", "schedule.epochs=1", f"train.output_dir={tmp_path / 'one'}")
    run_in_process(*data, r"train.freeze=['^backbone\.']", f"train.output_dir={tmp_path / 'three'}")
    one = load_checkpoint(tmp_path / "one" / "model_0000003.pth")["model"]
    three = load_checkpoint(tmp_path / "three" / "model_0000009.pth")["model"]
    same = {name for name in one if torch.equal(one[name], three[name])}
    assert same == {"backbone.0.weight", "backbone.0.bias"}
