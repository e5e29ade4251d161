"""Suppression with results of fixed size against torchvision's, whose results are of any size."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hdetr_d2.ops import nms_mask, nms_mask_reference

FORMS = [nms_mask, nms_mask_reference]
THRESHOLDS = [0.31731, 0.53033, 0.70711]
"""None is an overlap of boxes with small whole numbers for corners, which torchvision compares in another precision."""
Form = Callable[[Tensor, float], Tensor]


def grid_boxes(images: int, count: int, *, side: int, seed: int = 0) -> Tensor:
    """XYXY boxes with whole corners, whose areas and overlaps every processor computes without rounding."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, side, (images, count, 2), generator=generator)
    size = torch.randint(1, 1 + side // 2, (images, count, 2), generator=generator)
    return torch.cat([corner, corner + size], dim=-1).float()


def by_torchvision(boxes: Tensor, threshold: float) -> Tensor:
    nms = pytest.importorskip("torchvision.ops").nms  # not on every machine that has a GPU
    falling = -torch.arange(boxes.shape[1], dtype=torch.float32)
    mask = torch.zeros(boxes.shape[:2], dtype=torch.bool)
    for image, of_image in enumerate(boxes):
        mask[image, nms(of_image, falling, threshold)] = True
    return mask


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize(("images", "count", "side"), [(3, 200, 16), (1, 65, 6), (2, 33, 40), (2, 1, 5)])
def test_the_boxes_that_remain_are_torchvision_s(
    form: Form, threshold: float, images: int, count: int, side: int
) -> None:
    boxes = grid_boxes(images, count, side=side, seed=count)
    mask = form(boxes, threshold)
    assert torch.equal(mask, by_torchvision(boxes, threshold))
    assert mask[:, 0].all()


@pytest.mark.parametrize("form", FORMS)
def test_of_equal_boxes_the_first_remains(form: Form) -> None:
    boxes = grid_boxes(1, 12, side=9)[:, :4].repeat_interleave(3, dim=1)
    mask = form(boxes, 0.999)
    assert mask.view(4, 3).tolist() == [[True, False, False]] * 4


@pytest.mark.parametrize("form", FORMS)
def test_an_overlap_of_the_threshold_itself_strikes_nothing_out(form: Form) -> None:
    boxes = torch.tensor([[[0.0, 0, 2, 2], [0, 0, 2, 1], [0, 0, 2, 2]]])
    assert form(boxes, 0.5).tolist() == [[True, True, False]]


@pytest.mark.parametrize("form", FORMS)
def test_a_box_that_is_struck_out_strikes_nothing_out(form: Form) -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 1], [3, 0, 13, 1], [6, 0, 16, 1]]])  # neighbours overlap by 7 / 13
    assert form(boxes, 0.5).tolist() == [[True, False, True]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(0, 5, 4), (2, 0, 4), (0, 0, 4)])
def test_nothing_is_suppressed_where_nothing_is(form: Form, shape: tuple[int, ...]) -> None:
    mask = form(torch.zeros(shape), 0.5)
    assert mask.shape == shape[:2]
    assert mask.dtype == torch.bool


@pytest.mark.parametrize("form", FORMS)
def test_points_and_what_is_not_a_number_strike_out_nothing_and_stay(form: Form) -> None:
    box, point, none = [0.0, 0, 4, 4], [1.0, 1, 1, 1], [0.0, 0, float("nan"), 4]
    boxes = torch.tensor([[point, point, none, none, box, box, point]])
    assert form(boxes, 0.1).tolist() == [[True, True, True, True, True, False, True]]


@pytest.mark.parametrize("form", FORMS)
def test_boxes_may_lie_in_memory_in_any_way_and_images_are_apart(form: Form) -> None:
    boxes = grid_boxes(4, 30, side=8)
    whole = form(boxes, 0.5)
    assert torch.equal(form(boxes.transpose(0, 1).contiguous().transpose(0, 1), 0.5), whole)
    for image in range(4):
        assert torch.equal(form(boxes[image : image + 1], 0.5)[0], whole[image])


def test_the_operator_passes_opcheck_and_is_traced_whole() -> None:
    operator = torch.ops.hdetr_d2.nms_mask
    boxes = grid_boxes(2, 20, side=8)
    torch.library.opcheck(operator.default, (boxes, 0.5))
    compiled = torch.compile(lambda x: nms_mask(x, 0.5).sum(1), fullgraph=True, backend="aot_eager", dynamic=True)
    for count in (20, 31):
        boxes = grid_boxes(2, count, side=8)
        assert torch.equal(compiled(boxes), nms_mask(boxes, 0.5).sum(1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_decides_as_the_cpu_does() -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (0, 1, 63, 64, 65, 300, 900, 2500):
        corner = torch.rand(4, count, 2, generator=generator)
        boxes = torch.cat([corner, corner + torch.rand(4, count, 2, generator=generator)], dim=-1)
        boxes[:, ::11, 1] = float("nan")
        boxes[:, 3::11, 2:] = boxes[:, 3::11, :2]
        for threshold in (0.0, 0.5, 0.7):
            expected = nms_mask(boxes, threshold)
            assert torch.equal(nms_mask(boxes.cuda(), threshold).cpu(), expected)
            shifted = torch.empty(4 * count * 4 + 1, device="cuda")[1:].view(4, count, 4).copy_(boxes)
            assert torch.equal(nms_mask(shifted, threshold).cpu(), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_not_waited_for() -> None:
    boxes = grid_boxes(2, 200, side=16).cuda()
    nms_mask(boxes, 0.5)
    torch.cuda.set_sync_debug_mode("error")
    try:
        nms_mask(boxes, 0.5)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("shape", [(5, 4), (1, 5, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeError, match="nms_mask"):
        nms_mask(torch.zeros(shape), 0.5)
