"""Denoising queries: the authors' arrays from their draws, counts, masks, and batches with few or many targets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hdetr_d2.layers import box_iou, cxcywh_to_xyxy
from hdetr_d2.modeling.denoising import DenoisingQueries, NoiseDraws, NoisedTargets
from hdetr_d2.structures import QueryGroup, Targets

DN_DETR: dict[str, Any] = {
    "num_groups": 5,
    "budget": None,
    "contrastive": False,
    "label_noise": 0.2,
    "box_noise": 0.4,
    "indicator": True,
    "train_background": False,
    "local_divisor": True,
}
DINO: dict[str, Any] = {"budget": 20, "box_noise": 0.4}
RT_DETR: dict[str, Any] = {"budget": 20, "padding_box": 0.0, "eps": 1e-5}
FILES = {
    "dn_detr": DN_DETR,
    "dn_deformable_detr": DN_DETR,
    "dino": DINO | {"small_budget_is_groups": True},
    "mr_detr_dino": DINO,
    "rtdetr": RT_DETR,
    "rtdetrv2": RT_DETR,
    "rtdetrv2_discrete": RT_DETR,
    "deim_rtdetrv2": RT_DETR | {"absolute": True},
}


def draw_targets(*counts: int) -> list[Targets]:
    centre = [0.3 + 0.4 * torch.rand(n, 2) for n in counts]
    return [
        Targets(torch.randint(10, (n,)), torch.cat([c, 0.1 + 0.3 * torch.rand(n, 2)], dim=1))
        for n, c in zip(counts, centre)
    ]


def make(**options: Any) -> DenoisingQueries:
    return DenoisingQueries(num_classes=10, embed_dim=256, **options)


class StoredNoise:
    """One block of a file made from the authors' code."""

    def __init__(self, folder: Path, name: str, prefix: str = "") -> None:
        path = folder / f"parity/family/{name}.npz"
        if not path.exists():
            pytest.skip(f"{path.name} is not beside the repository")
        self.data, self.prefix = np.load(path), prefix
        self.config = json.loads(self.data["config.json"].tobytes())

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.data[self.prefix + key])

    def targets(self) -> list[Targets]:
        return [Targets(self[f"gt/{i}/labels"], self[f"gt/{i}/boxes_cxcywh"]) for i in range(3)]

    def draws(self) -> NoiseDraws:
        """Their raw draws, which DN-DETR and DINO make for targets and RT-DETR for slots, as ours, made for slots."""
        if f"{self.prefix}dn/rand/label_u" in self.data:
            shift = self["dn/rand/part01"] * (2 * self["dn/rand/sign01"] - 1)
            return NoiseDraws(self["dn/rand/label_u"], self["dn/rand/new_label"], shift)
        slot = self["dn/flat_image"], self["dn/flat_slot"]
        flip = torch.ones(self["dn/labels"].shape).index_put(slot, self["dn/draw/label_p"])
        probability = 0.2 if "dn/draw/box_u" in self.data else 0.25
        flipped = (self["dn/draw/label_p"] < probability).nonzero().flatten()
        label = torch.zeros(flip.shape, dtype=torch.int64)
        label[slot[0][flipped], slot[1][flipped]] = self["dn/draw/new_label"]
        if "dn/draw/box_u" in self.data:
            flat = 2 * self["dn/draw/box_u"] - 1
        else:
            flat = self["dn/draw/part"] * (2 * self["dn/draw/sign01"] - 1)
        return NoiseDraws(flip, label, torch.zeros(*flip.shape, 4).index_put(slot, flat))


BLOCKS = [(name, "") for name in FILES] + [(name, "rect/") for name in FILES if name.startswith(("rt", "deim"))]


@pytest.mark.parametrize(("name", "prefix"), BLOCKS)
def test_the_authors_draws_give_the_authors_queries(shared_folder: Path, name: str, prefix: str) -> None:
    stored = StoredNoise(shared_folder, name, prefix)
    denoising = make(**FILES[name])
    noised = denoising.noise(stored.targets(), stored.draws())
    valid = noised.valid
    expected = stored["dn/labels"]
    assert torch.equal(valid, (expected >= 0) & (expected < 10))
    assert torch.equal(noised.labels[valid], expected[valid])
    torch.testing.assert_close(noised.boxes[valid], stored["dn/boxes_cxcywh"][valid], atol=1e-6, rtol=0)
    if "dn/gt_index" in stored.data:
        assert torch.equal(noised.gt_index, stored["dn/gt_index"])
        assert torch.equal(noised.positive, stored["dn/is_positive"])
    slot_key, gt_key = ("dn/positive_idx/{}", "dn/gt_idx/{}")
    if "dn/gt_index" in stored.data:
        slot_key, gt_key = ("dn/{}/positive_slot", "dn/{}/positive_gt")
    for image in range(3):
        own = noised.known.row // valid.shape[1] == image
        offset = sum(len(t.labels) for t in stored.targets()[:image])
        assert torch.equal((noised.known.row % valid.shape[1])[own], stored[slot_key.format(image)])
        assert torch.equal(noised.known.target[own] - offset, stored[gt_key.format(image)])


@pytest.mark.parametrize(("name", "prefix"), BLOCKS)
def test_references_mask_and_empty_slots_are_the_authors(shared_folder: Path, name: str, prefix: str) -> None:
    stored = StoredNoise(shared_folder, name, prefix)
    denoising = make(**FILES[name])
    noised = denoising.noise(stored.targets(), stored.draws())
    group = denoising(noised)
    slots = noised.valid.shape[1]
    blocked = stored["dn/attn_mask"]
    assert torch.equal(group.mask, blocked[:slots, :slots])
    assert not blocked[:slots, slots:].any()
    assert blocked[slots:, :slots].all()
    assert group.sees == ("one2one",)
    if "dn/query_boxes_unsigmoid" in stored.data:
        logits = stored["dn/query_boxes_unsigmoid"][:, :slots]
    else:
        logits = stored["dn/boxes_unact"] if "dn/boxes_unact" in stored.data else stored["dn/ref_logit"]
    torch.testing.assert_close(group.reference, logits.sigmoid(), atol=1e-6, rtol=0)


def test_content_is_the_label_tables_row_and_the_indicator(shared_folder: Path) -> None:
    stored = StoredNoise(shared_folder, "dn_detr")
    denoising = make(**DN_DETR)
    with torch.no_grad():
        denoising.label_embed.weight.copy_(stored["sd/label_enc.weight"])
    group = denoising(denoising.noise(stored.targets(), stored.draws()))
    torch.testing.assert_close(group.content, stored["dn/query_content"], atol=0, rtol=0)


def primary(*, name: str = "one2one", route: str = "", images: int = 2) -> QueryGroup:
    """A group of three queries with positions."""
    content = torch.randn(images, 3, 256)
    return QueryGroup(name=name, content=content, reference=torch.rand(images, 3, 4), position=content, route=route)


def no_position(reference: Tensor) -> None:
    assert reference.shape[-1] == 4


def test_each_route_gets_a_denoising_group_that_sees_the_first_group_of_the_route() -> None:
    groups = [primary(), primary(name="one2many"), primary(name="instructed", route="instructed")]
    joined = make().join(groups, draw_targets(2, 1), lambda boxes: boxes.sum(-1, keepdim=True).expand(-1, -1, 256))
    assert joined[:3] == groups
    assert [(g.name, g.sees, g.route) for g in joined[3:]] == [
        ("dn", ("one2one",), ""),
        ("dn_instructed", ("instructed",), "instructed"),
    ]
    assert torch.equal(joined[3].content, joined[4].content)
    assert joined[3].known is joined[4].known
    torch.testing.assert_close(joined[3].position[..., 0], joined[3].reference.sum(-1))


def test_inference_has_no_denoising_group() -> None:
    groups = [primary()]
    assert make().join(groups, None, no_position) == groups


@pytest.mark.parametrize("targets", [None, draw_targets(2, 1)], ids=["inference", "training"])
def test_other_queries_get_the_embedding_of_no_class_where_asked(targets: list[Targets] | None) -> None:
    denoising = make(**DN_DETR, unknown_content=True)
    group = primary()
    added = denoising.join([group], targets, no_position)[0].content - group.content
    torch.testing.assert_close(added[..., :-1], denoising.label_embed.weight[10].expand(2, 3, -1), atol=1e-5, rtol=0)
    assert added[..., -1].abs().max() == 0


def test_groups_of_dn_detr_see_themselves_only() -> None:
    denoising = make(**DN_DETR | {"num_groups": 2})
    assert denoising(denoising.noise(draw_targets(2, 1))).mask.int().tolist() == [
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [1, 1, 0, 0],
        [1, 1, 0, 0],
    ]


@pytest.mark.parametrize(("most", "groups", "queries"), [(1, 100, 200), (7, 14, 196), (60, 1, 120), (150, 1, 300)])
def test_a_budget_of_100_gives_the_published_numbers_of_contrastive_queries(
    most: int, groups: int, queries: int
) -> None:
    noised = make().noise(draw_targets(most, 1))
    assert (noised.num_groups, noised.valid.shape[1]) == (groups, queries)


def test_dinos_code_reads_a_small_budget_as_groups() -> None:
    assert make(budget=4).groups_for(2) == 2
    assert make(budget=4, small_budget_is_groups=True).groups_for(2) == 8
    assert make(budget=50, small_budget_is_groups=True).groups_for(7) == 7


def overlap(noised: NoisedTargets, targets: list[Targets], chosen: Tensor) -> tuple[float, float]:
    """Mean IoU of chosen noised boxes with their targets, and the part of them that has (almost) lost a side."""
    boxes = noised.boxes[chosen]
    iou = box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(targets[0].boxes[0].expand_as(boxes)))
    return iou.mean().item(), (boxes[:, 2:] < 1e-3).any(1).float().mean().item()


def test_noise_is_as_strong_as_measured_on_the_authors_code() -> None:
    targets = [Targets(torch.tensor([3]), torch.tensor([[0.5, 0.5, 0.2, 0.4]]))]
    noised = make(**DN_DETR | {"num_groups": 20000}).noise(targets)
    assert overlap(noised, targets, noised.valid)[0] == pytest.approx(0.60, abs=0.01)
    for scale, positive, negative, collapsed in ((1.0, 0.38, 0.04, 0.44), (0.4, 0.68, 0.31, 0.0)):
        noised = make(num_groups=20000, budget=None, box_noise=scale).noise(targets)
        assert overlap(noised, targets, noised.positive)[0] == pytest.approx(positive, abs=0.01)
        iou, lost = overlap(noised, targets, ~noised.positive)
        assert (iou, lost) == (pytest.approx(negative, abs=0.01), pytest.approx(collapsed, abs=0.02))


def test_labels_are_replaced_with_the_given_probability_by_any_class() -> None:
    targets = [Targets(torch.tensor([3]), torch.tensor([[0.5, 0.5, 0.2, 0.4]]))]
    noised = make(num_groups=10000, budget=None, label_noise=0.25).noise(targets)
    frequency = noised.labels.flatten().bincount(minlength=10) / noised.labels.numel()
    expected = torch.full((10,), 0.025)
    expected[3] = 0.775
    torch.testing.assert_close(frequency, expected, atol=0.01, rtol=0)


def test_without_noise_the_queries_are_the_targets() -> None:
    targets = draw_targets(3, 1)
    for options in (DN_DETR, DINO):
        noised = make(**options | {"label_noise": 0.0, "box_noise": 0.0}).noise(targets)
        for image, target in enumerate(targets):
            index = noised.gt_index[image][noised.valid[image]]
            assert torch.equal(noised.labels[image][noised.valid[image]], target.labels[index])
            torch.testing.assert_close(noised.boxes[image][noised.valid[image]], target.boxes[index])


def test_noise_follows_the_global_seed() -> None:
    denoising, targets, boxes = make(), draw_targets(3, 1), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        boxes.append(denoising.noise(targets).boxes)
    assert torch.equal(boxes[0], boxes[1])
    assert not torch.equal(boxes[0], boxes[2])


@pytest.mark.parametrize("options", [DN_DETR, DINO, RT_DETR], ids=["dn", "dino", "rt"])
@pytest.mark.parametrize("counts", [(0, 0), (0, 3), (2, 0, 5), (40, 1), (0,)])
def test_any_number_of_targets_gives_queries_that_fit_together(
    options: dict[str, Any], counts: tuple[int, ...]
) -> None:
    denoising = make(**options)
    noised = denoising.noise(draw_targets(*counts))
    group = denoising(noised)
    slots = noised.num_groups * noised.group_size
    assert slots == (0 if not any(counts) else noised.num_groups * max(counts) * (2 if denoising.contrastive else 1))
    assert group.content.shape == (len(counts), slots, 256)
    assert group.reference.shape == (len(counts), slots, 4)
    assert group.mask.shape == (slots, slots)
    assert noised.positive.sum().item() == noised.num_groups * sum(counts) == len(noised.known.row)
    assert torch.equal(noised.known.row.sort().values, noised.positive.flatten().nonzero().flatten())
    assert float(noised.known.divisor) >= 1
    if any(counts):
        assert float(noised.known.divisor) == noised.num_groups * sum(counts)
    assert group.content[~noised.valid].eq(0).all()
    assert group.reference.isfinite().all()
    assert not group.reference.requires_grad
    group.content.sum().backward()
    assert denoising.label_embed.weight.grad.isfinite().all()  # there is a gradient, if zero, without targets too


def test_who_learns_background_is_said_by_the_known_matches() -> None:
    targets = draw_targets(3, 1)
    noised = make(**DN_DETR).noise(targets)
    assert torch.equal(noised.known.trained, noised.positive.flatten().nonzero().flatten())
    assert make(**DINO).noise(targets).known.trained is None


def test_boxes_that_noise_turned_inside_out_are_turned_back_where_asked() -> None:
    targets = draw_targets(50)
    sizes = []
    for absolute in (False, True):
        torch.manual_seed(0)
        sizes.append(make(**RT_DETR, absolute=absolute).noise(targets).boxes[..., 2:])
    assert sizes[0].min() < 0
    assert torch.equal(sizes[0].abs(), sizes[1])


def test_targets_of_any_size_stay_inside_the_image() -> None:
    targets = [Targets(torch.tensor([0, 1]), torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.999, 0.001, 1e-4, 1e-4]]))]
    for options in (DN_DETR, RT_DETR):
        denoising = make(**options)
        noised = denoising.noise(targets)
        assert noised.boxes[..., :2].ge(0).all()
        assert noised.boxes[..., :2].le(1).all()
        assert denoising(noised).reference.ge(0).all()
        assert denoising(noised).reference.le(1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_groups": 5}, "num_groups or budget"),
        ({"budget": None}, "num_groups or budget"),
        ({"budget": 0}, "at least 1"),
        ({"label_noise": 1.5}, "label_noise"),
        ({"box_noise": -0.1}, "box_noise"),
        ({"unknown_content": True, "unknown_row": False}, "unknown_row"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_dummies_of_a_batch_without_targets_learn_that_nothing_is_there() -> None:
    empty = draw_targets(0, 0)
    denoising = make(**RT_DETR, authors_dummies=True)
    noised = denoising.noise(empty)
    group = denoising(noised)
    assert noised.labels.tolist() == [[10, 10]] * 2
    assert not noised.valid.any()
    assert len(noised.known.row) == 0
    assert noised.known.trained is None
    assert float(noised.known.divisor) == 1
    assert group.content.shape == (2, 2, 256)
    assert not group.content.any()
    assert not group.mask.any()
    moved = (cxcywh_to_xyxy(noised.boxes) - torch.tensor([0.45, 0.45, 0.55, 0.55])).abs()
    assert (moved[:, 0] < 0.0501).all()
    assert (moved[:, 1] > 0.0499).all()
    assert (moved < 0.1001).all()
    assert make(**RT_DETR).noise(empty).labels.shape == (2, 0)
    # With any target in the batch there are none.
    assert make(**RT_DETR, authors_dummies=True).noise(draw_targets(2, 0)).valid.sum() == 2 * 2 * 10
