"""What PyTorch knows of the operators: opcheck, torch.compile, autocast, derivatives, and the missing extension."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from hdetr_d2.ops import (
    _extension,
    ms_deform_attn,
    ms_deform_attn_fused,
    ms_deform_attn_fused_reference,
    ms_deform_attn_reference,
)
from tests.ops.problems import DEVICES, FORMS, random_problem

OPERATORS = {"plain": torch.ops.hdetr_d2.ms_deform_attn, "fused": torch.ops.hdetr_d2.ms_deform_attn_fused}
FUNCTIONS = {"plain": ms_deform_attn, "fused": ms_deform_attn_fused}
ROOT = Path(__file__).parents[2]

on_devices = pytest.mark.parametrize("device", DEVICES)
in_forms = pytest.mark.parametrize(("form", "reference_width"), FORMS)


@on_devices
@in_forms
def test_opcheck_passes(device: str, form: str, reference_width: int) -> None:
    problem = random_problem(form, reference_width, device=device, dtype=torch.float32, width=8)
    torch.library.opcheck(OPERATORS[form].default, problem.arguments)


@on_devices
def test_opcheck_of_the_backward_operators_passes(device: str) -> None:
    tests = ("test_schema", "test_faketensor")  # they are not differentiable, which is tested below
    arguments = [t.detach() for t in random_problem("fused", 4, device=device, dtype=torch.float32).arguments]
    grad = torch.randn_like(ms_deform_attn_fused(*arguments))
    backward = torch.ops.hdetr_d2.ms_deform_attn_fused_backward.default
    for needs in ((True,) * 4, (False,) * 4, (True, False, True, False), (False, True, False, True)):
        torch.library.opcheck(backward, (grad, *arguments, *needs), test_utils=tests)
    arguments = [t.detach() for t in random_problem(device=device, dtype=torch.float32).arguments]
    grad = torch.randn_like(ms_deform_attn(*arguments))
    backward = torch.ops.hdetr_d2.ms_deform_attn_backward.default
    for needs in ((True,) * 3, (False,) * 3, (True, False, False), (False, True, True)):
        torch.library.opcheck(backward, (grad, *arguments, *needs), test_utils=tests)


class Attention(nn.Module):
    """Offsets and logits from tokens, then the fused operator: what an attention module does."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.offsets, self.logits = nn.Linear(8, 8), nn.Linear(8, 2 * 2 * 3 * 2), nn.Linear(8, 2 * 2 * 3)

    def forward(self, tokens: Tensor, spatial_shapes: Tensor, reference: Tensor) -> Tensor:
        batch, queries = tokens.shape[:2]
        return ms_deform_attn_fused(
            self.value(tokens).view(batch, queries, 2, 4),
            spatial_shapes,
            self.offsets(tokens).view(batch, queries, 2, 2, 3, 2),
            self.logits(tokens).view(batch, queries, 2, 6),
            reference,
        )


@on_devices
def test_compiles_to_one_graph_that_serves_all_image_sizes(device: str) -> None:
    torch._dynamo.reset()
    module = Attention().to(device)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=counter)
    for batch, shapes in [(5, [(6, 7), (3, 4)]), (6, [(8, 5), (4, 3)]), (7, [(9, 9), (2, 2)])]:
        spatial_shapes = torch.tensor(shapes)
        tokens = torch.randn(batch, int(spatial_shapes.prod(1).sum()), 8, device=device, requires_grad=True)
        reference = torch.rand(batch, tokens.shape[1], 2, 2, device=device)
        ours = compiled(tokens, spatial_shapes, reference)
        theirs = module(tokens, spatial_shapes, reference)
        assert torch.allclose(ours, theirs, atol=1e-6)
        grads = [torch.autograd.grad(output.square().sum(), tokens)[0] for output in (ours, theirs)]
        assert torch.allclose(*grads, atol=1e-5)
    assert counter.frame_count == 1


@on_devices
@in_forms
def test_a_second_derivative_is_refused(device: str, form: str, reference_width: int) -> None:
    problem = random_problem(form, reference_width, device=device, dtype=torch.float32)
    output = FUNCTIONS[form](*problem.arguments)
    (grad,) = torch.autograd.grad(output.square().sum(), problem.arguments[0], create_graph=True)
    with pytest.raises(RuntimeError, match="ms_deform_attn has no second derivative"):
        grad.sum().backward()


@on_devices
@in_forms
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_halves_the_values_only(device: str, form: str, reference_width: int, dtype: torch.dtype) -> None:
    reference = {"plain": ms_deform_attn_reference, "fused": ms_deform_attn_fused_reference}[form]
    problem = random_problem(form, reference_width, device=device, dtype=torch.float32)
    value, *rest = problem.arguments
    with torch.autocast(device, dtype=dtype):
        output = FUNCTIONS[form](value, *rest)
        output.float().sum().backward()
    assert output.dtype == dtype
    assert all(leaf.grad is not None and leaf.grad.dtype == torch.float32 for leaf in problem.leaves)
    # Equal to float32 arithmetic on rounded values: had locations been rounded too, this would be off by 1e-1
    expected = reference(value.detach().to(dtype).float(), *(tensor.detach() for tensor in rest))
    assert torch.allclose(output.float(), expected, rtol=1e-2, atol=1e-2)


@on_devices
def test_half_offsets_and_logits_of_an_autocast_linear_are_accepted(device: str) -> None:
    value, shapes, offsets, logits, reference = random_problem("fused", 2, device=device, dtype=torch.float32).arguments
    output = ms_deform_attn_fused(value.bfloat16(), shapes, offsets.bfloat16(), logits.bfloat16(), reference)
    output.sum().backward()
    assert output.dtype == torch.bfloat16
    assert offsets.grad is not None
    assert logits.grad is not None


def test_schemas_declared_without_the_extension_are_those_of_the_extension() -> None:
    from importlib import import_module

    declared = import_module("hdetr_d2.ops.ms_deform_attn")._SCHEMAS
    compiled = [
        str(getattr(torch.ops.hdetr_d2, schema.partition("(")[0]).default._schema).removeprefix("hdetr_d2::")
        for schema in declared
    ]
    assert compiled == list(declared)


def run_without_extension(folder: Path, note: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` against a copy of hdetr_d2/ops whose build note is ``note`` and which has no shared object."""
    package = folder / "hdetr_d2"
    (package / "ops").mkdir(parents=True)
    (package / "__init__.py").touch()
    for file in (ROOT / "hdetr_d2" / "ops").glob("*.py"):
        (package / "ops" / file.name).write_text(file.read_text())
    (package / "ops" / "_build.json").write_text(note)
    if "torch" in note:
        (package / "ops" / "_C.so").touch()
    (folder / "tests" / "ops").mkdir(parents=True)
    (folder / "tests" / "ops" / "problems.py").write_text((ROOT / "tests" / "ops" / "problems.py").read_text())
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )


USE_THE_FALLBACK = """
import torch
from hdetr_d2.ops import ms_deform_attn, ms_deform_attn_fused
from hdetr_d2.ops import ms_deform_attn_reference, ms_deform_attn_fused_reference
from tests.ops.problems import random_problem
for form, width, ours, theirs in [("plain", 0, ms_deform_attn, ms_deform_attn_reference),
                                  ("fused", 4, ms_deform_attn_fused, ms_deform_attn_fused_reference)]:
    problem = random_problem(form, width)
    assert all(torch.equal(a, b) for a, b in zip(problem.run(ours), problem.run(theirs)))
operator = torch.ops.hdetr_d2.ms_deform_attn.default
assert operator(*(t.detach() for t in random_problem().arguments)).shape == (2, 5, 64)
for form, width, reference in [("plain", 0, ms_deform_attn_reference), ("fused", 4, ms_deform_attn_fused_reference)]:
    operator = {"plain": torch.ops.hdetr_d2.ms_deform_attn, "fused": torch.ops.hdetr_d2.ms_deform_attn_fused}[form]
    problem = random_problem(form, width)
    assert all(torch.equal(a, b) for a, b in zip(problem.run(operator.default), problem.run(reference)))
    leaves = random_problem(form, width, dtype=torch.float32, width=8).arguments
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(operator.default, leaves, test_utils=checks)
"""


@pytest.mark.parametrize(
    ("note", "says"),
    [
        ("{}", "the operators were never built; run `pip install --no-build-isolation -e .`"),
        ('{"error": "the compiler failed"}', "the compiler failed; run `pip install --no-build-isolation -e .`"),
        ('{"torch": "1.0.0"}', f"the operators were built for torch 1.0.0, and this is torch {torch.__version__}; run"),
        (f'{{"torch": "{torch.__version__}"}}', "_C.so (built for torch"),
    ],
    ids=["never built", "failed", "other torch", "broken file"],
)
def test_without_the_extension_the_reference_runs_after_one_warning(tmp_path: Path, note: str, says: str) -> None:
    result = run_without_extension(tmp_path, note, USE_THE_FALLBACK)
    assert result.stderr.count("UserWarning") == 1
    assert "multi-scale deformable attention uses the slow PyTorch reference on cpu: " in result.stderr
    assert says in result.stderr


def test_loading_the_extension_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ms_deform_attn(*(t.detach() for t in random_problem().arguments))
    assert _extension.WHY_NOT is None
