"""Losses of distributions against numbers worked out by hand and against transformers' code."""

from typing import Any

import pytest
import torch
from torch import Tensor

from hdetr_d2.losses import DistributionLoss
from hdetr_d2.losses.distribution import bin_targets
from hdetr_d2.modeling.distributions import bin_values
from hdetr_d2.structures import EdgeDistributions

SCALE = torch.tensor([4.0])
VALUES = bin_values(32, up=torch.tensor([0.5]), scale=SCALE)


def test_true_edges_are_between_the_bins_of_the_authors() -> None:
    reference, target = torch.tensor([[0.5, 0.5, 0.2, 0.4]]), torch.tensor([[0.65, 0.485, 0.6, 0.41]])
    left, weight = bin_targets(reference, target, VALUES, SCALE)
    assert left.tolist() == [[25, 18, 31, 14]]
    torch.testing.assert_close(weight, torch.tensor([[0.4549, 0.4802, 1.0, 0.7063]]), atol=1e-4, rtol=0)


def test_an_edge_before_the_first_bin_is_in_it() -> None:
    left, weight = bin_targets(torch.full((1, 4), 0.5), torch.tensor([[0.5, 0.5, -9.0, 0.5]]), VALUES, SCALE)
    assert left[0, 0] == 0
    assert weight[0, 0] == 0.0


def drawn(*, depth: int = 3, images: int = 2, queries: int = 6) -> tuple[EdgeDistributions, Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(depth, images, queries, 4, 33, generator=generator)
    reference = torch.rand(images, queries, 4, generator=generator) * 0.3 + 0.3
    edges = EdgeDistributions(logits.requires_grad_(), reference, VALUES, SCALE)
    return edges, torch.randn(depth, images, queries, 5, generator=generator)


def theirs(edges: EdgeDistributions, logits: Tensor, boxes: Tensor, target: Tensor, pairs: Any, layer: int) -> Any:
    """The losses of transformers' code, of one layer."""
    transformers = pytest.importorskip("transformers")
    from transformers.loss.loss_d_fine import DFineLoss

    loss = DFineLoss(transformers.DFineConfig(num_labels=5))
    outputs = {
        "pred_boxes": boxes[layer],
        "pred_corners": edges.logits[layer].flatten(-2),
        "ref_points": edges.reference,
        "teacher_corners": edges.logits[-1].flatten(-2),
        "teacher_logits": logits[-1].clone(),
    }
    return loss.loss_local(outputs, [{"boxes": part} for part in target], pairs, num_boxes=1)


@pytest.mark.parametrize("layer", [0, 1])
def test_both_losses_are_those_of_transformers(layer: int) -> None:
    edges, logits = drawn()
    generator = torch.Generator().manual_seed(6)
    boxes, target = (torch.rand(*shape, 4, generator=generator) * 0.4 + 0.3 for shape in ((3, 2, 6), (2, 3)))
    pairs = [(torch.tensor([0, 3, 5]), torch.tensor([2, 0, 1])), (torch.tensor([1, 2]), torch.tensor([0, 2]))]
    row = torch.cat([query + 6 * image for image, (query, _) in enumerate(pairs)])
    learned = torch.cat([target[image, found] for image, (_, found) in enumerate(pairs)])
    from torchvision.ops import box_convert, box_iou

    of_layer = boxes[layer].flatten(0, 1)[row]
    iou = box_iou(*(box_convert(x, "cxcywh", "xyxy") for x in (of_layer, learned))).diagonal()
    loss, where = DistributionLoss(), torch.full_like(row, layer)
    expected = theirs(edges, logits, boxes, target, pairs, layer)
    local = loss.localisation(edges, where, row, learned, iou).sum()
    torch.testing.assert_close(local, expected["loss_fgl"], rtol=1e-5, atol=1e-6)
    distilled, counts = loss.distillation(edges, logits, where, row, iou)
    torch.testing.assert_close(distilled[layer], expected["loss_ddf"], rtol=1e-5, atol=1e-6)
    assert counts[layer].tolist() == [5, 7]
    for ours, other in ((local, expected["loss_fgl"]), (distilled[layer], expected["loss_ddf"])):
        found, wanted = (torch.autograd.grad(x, edges.logits, retain_graph=True)[0] for x in (ours, other))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_the_last_layer_teaches_and_does_not_learn() -> None:
    edges, logits = drawn()
    none = torch.zeros(0, dtype=torch.int64)
    distilled, _ = DistributionLoss().distillation(edges, logits, none, none, torch.zeros(0))
    (gradient,) = torch.autograd.grad(distilled.sum(), edges.logits)
    assert distilled[-1] == 0
    assert not gradient[-1].any()
    assert gradient[:-1].flatten(1).any(1).all()


def test_queries_that_do_not_stand_are_taught_nothing() -> None:
    edges, logits = drawn()
    stands = torch.tensor([True, False, True, True, False, True]).expand(3, 2, 6)
    row = torch.tensor([0, 1])
    distilled, _ = DistributionLoss().distillation(
        edges, logits, torch.zeros_like(row), row, torch.tensor([0.5, 0.7]), stands=stands
    )
    (gradient,) = torch.autograd.grad(distilled.sum(), edges.logits)
    assert torch.equal(gradient[:-1].flatten(3).any(-1), stands[:-1])


def test_without_queries_there_is_nothing_to_distil() -> None:
    edges, logits = drawn(queries=0)
    none = torch.zeros(0, dtype=torch.int64)
    distilled, _ = DistributionLoss().distillation(edges, logits, none, none, torch.zeros(0))
    assert distilled.tolist() == [0.0, 0.0, 0.0]
