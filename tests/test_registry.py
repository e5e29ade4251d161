"""Every choice that a config may make by name is found by its name, and a wrong name says what there is."""

import importlib
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from hdetr_d2 import registry
from hdetr_d2.errors import UserError
from hdetr_d2.losses import ClassificationLoss, Positives
from hdetr_d2.registry import KINDS, Kind
from hdetr_d2.supervision import HybridLayer, OneToOne, Supervision

PACKAGES: dict[Kind, str] = {
    "supervision": "hdetr_d2.supervision",
    "matcher": "hdetr_d2.matching",
    "loss": "hdetr_d2.losses",
    "evaluator": "hdetr_d2.evaluation",
}


class OwnLoss(ClassificationLoss):
    """A loss of somebody else's, registered nowhere."""

    def forward(self, logits: Tensor, positives: Positives) -> Tensor:
        """Nothing."""
        return logits.sum((1, 2)) * 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_every_exported_class_that_can_be_built_is_found_by_its_name(kind: Kind) -> None:
    package = importlib.import_module(PACKAGES[kind])
    exported = {
        name: cls
        for name in package.__all__
        if registry.kind_of(cls := getattr(package, name)) == kind and not getattr(cls, "__abstractmethods__", ())
    }
    assert exported
    # a sample of the docs that ran in this process may have registered a scheme of its own
    ours = [name for name in registry.names(kind) if registry.find(kind, name).__module__.startswith("hdetr_d2.")]
    assert ours == sorted(exported)
    for name, cls in exported.items():
        assert registry.find(kind, name) is cls


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("supervision", "HybridLayr", 'did you mean "HybridLayer"'),
        ("supervision", "hybrid_branch", 'did you mean "HybridBranch"'),
        ("supervision", "hungarianmatcher", "There are AuxiliaryOneToMany, .*, OneToOne"),
        ("supervision", "HungarianMatcher", "which is the name of a matcher"),
        ("supervision", "", "There are "),
        ("matcher", "hungarian", 'did you mean "HungarianMatcher"'),
        ("loss", "Varifocal", 'did you mean "VarifocalLoss"'),
        ("evaluator", "cocoevaluator", 'did you mean "COCOEvaluator"'),
        ("supervision", "hdetr_d2.matching.HungarianMatcher", "is no supervision"),
        ("supervision", "hdetr_d2.supervision.PRIMARY", "is no supervision"),
        ("supervision", "hdetr_d2.supervision.Missing", "cannot be imported"),
        ("supervision", "no_such_package.Scheme", "cannot be imported"),
        ("supervision", ".Scheme", "cannot be imported"),
    ],
)
def test_a_name_that_does_not_exist_says_what_does(kind: Kind, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        registry.find(kind, name)
    assert "\n" not in str(caught.value)


def test_a_class_of_ones_own_is_found_by_its_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "somebody_elses", sys.modules[__name__])
    assert registry.find("loss", "somebody_elses.OwnLoss") is OwnLoss
    assert registry.find("supervision", "hdetr_d2.supervision.HybridLayer") is HybridLayer


def test_the_kind_of_a_class_is_that_of_what_it_derives_from() -> None:
    assert registry.kind_of(OwnLoss) == "loss"
    assert registry.kind_of(Supervision) == "supervision"
    assert registry.kind_of(OneToOne) == "supervision"
    assert registry.kind_of(torch.nn.Linear) is None
    assert registry.kind_of(OneToOne()) is None
    assert registry.kind_of("OneToOne") is None


def test_importing_the_package_or_its_names_imports_no_implementation() -> None:
    code = (
        "import sys, hdetr_d2; assert 'torch' not in sys.modules; import hdetr_d2.registry;"
        "assert not {'hdetr_d2.losses', 'hdetr_d2.matching', 'hdetr_d2.supervision', 'hdetr_d2.evaluation'}"
        " & set(sys.modules); assert hdetr_d2.registry.kind_of(int) is None;"
        "assert hdetr_d2.registry.find('supervision', 'OneToOne').__name__ == 'OneToOne'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
