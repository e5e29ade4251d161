"""The CUDA kernels of suppression, their source compiled for the CPU, decide as the CPU kernel does: to the bit."""

import ctypes

import pytest
import torch
from torch import Tensor

from hdetr_d2.ops import nms_mask, nms_mask_reference
from tests.ops.emulation import CSRC, compile_for_cpu, fenced, fences_of

COUNTS = [1, 2, 31, 33, 63, 64, 65, 100, 128, 129, 257]
"""Parts of a word, whole words, and one more; warps and blocks that are full, and that are not."""
UNWRITTEN = 0x5A5A5A5A5A5A5A5A


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = compile_for_cpu(CSRC / "nms" / "cuda", "nms_entry", tmp_path_factory.mktemp("nms"))
    library.run_nms.restype = ctypes.c_char_p
    return library


def run_emulated(library: ctypes.CDLL, boxes: Tensor, threshold: float) -> Tensor:
    """What ``nms_mask`` returns, from the CUDA kernels. Memory that they must write holds something else before."""
    images, count, _ = boxes.shape
    words = torch.full((images * -(-count // 64) * count + 2,), UNWRITTEN)
    kept = torch.full((images * count + 2,), 7, dtype=torch.uint8)
    boxes = fenced(boxes)
    numbers = (ctypes.c_int64(images), ctypes.c_int64(count), ctypes.c_void_p(boxes.data_ptr()))
    to = (ctypes.c_void_p(tensor[1:].data_ptr()) for tensor in (words, kept))
    violation = library.run_nms(*numbers, ctypes.c_float(threshold), *to)
    assert violation is None, violation.decode()
    assert fences_of(boxes).isnan().all()
    assert words[[0, -1]].eq(UNWRITTEN).all()
    assert kept[[0, -1]].eq(7).all()
    assert kept[1:-1].le(1).all()
    return kept[1:-1].bool().view(images, count)


def check_equal(library: ctypes.CDLL, boxes: Tensor, threshold: float) -> Tensor:
    mask = run_emulated(library, boxes, threshold)
    assert torch.equal(mask, nms_mask(boxes, threshold))
    assert torch.equal(mask, nms_mask_reference(boxes, threshold))
    return mask


def draw(images: int, count: int, *, size: float, seed: int = 0) -> Tensor:
    """XYXY boxes of every size up to the given one, somewhere in the unit square."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, count, 2, generator=generator)
    return torch.cat([corner, corner + size * torch.rand(images, count, 2, generator=generator)], dim=-1)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("size", [0.3, 3.0])
def test_any_number_of_boxes(library: ctypes.CDLL, count: int, size: float) -> None:
    for seed, threshold in enumerate([0.0, 0.3, 0.5, 0.7, 1.0]):
        check_equal(library, draw(3, count, size=size, seed=seed), threshold)


def test_as_many_as_a_two_stage_model_proposes(library: ctypes.CDLL) -> None:
    kept = check_equal(library, draw(2, 900, size=1.0), 0.7).sum(1)
    assert kept.gt(100).all()
    assert kept.lt(800).all()


def test_pairs_of_every_overlap_near_the_threshold(library: ctypes.CDLL) -> None:
    """Where rounding decides, every operation must be rounded as the CPU's is."""
    boxes = draw(1, 40, size=0.7)
    x1, y1, x2, y2 = boxes.unbind(-1)
    area = (x2 - x1) * (y2 - y1)
    width, height = (
        torch.minimum(high[0][:, None], high[0]) - torch.maximum(low[0][:, None], low[0])
        for low, high in ((x1, x2), (y1, y2))
    )
    shared = width.clamp(min=0) * height.clamp(min=0)
    overlaps = (shared / (area[0][:, None] + area[0] - shared)).triu(1)
    decided = set()
    for threshold in overlaps[overlaps > 0.1].tolist():
        below = torch.tensor(threshold).nextafter(torch.tensor(0.0)).item()
        decided |= {check_equal(library, boxes, number).sum().item() for number in (below, threshold)}
    assert len(decided) > 10


def test_ties(library: ctypes.CDLL) -> None:
    same = draw(2, 1, size=1.0).expand(2, 130, 4)
    assert check_equal(library, same, 0.9).sum(1).tolist() == [1, 1]
    assert check_equal(library, same, 1.0).all()  # an overlap of the threshold itself
    check_equal(library, draw(2, 50, size=0.5).repeat_interleave(3, dim=1), 0.4)
    check_equal(library, draw(2, 70, size=0.5).repeat(1, 2, 1), 0.4)


def test_a_box_that_is_struck_out_strikes_out_nothing_however_far_apart(library: ctypes.CDLL) -> None:
    left = torch.arange(300.0).roll(150)  # each overlaps its neighbours by 9 / 11, those beyond by less
    boxes = torch.stack([left, torch.zeros(300), left + 10, torch.ones(300)], dim=-1)[None]
    kept = check_equal(library, boxes, 0.7)
    assert kept.sum() == 150


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e30, 3e38])
def test_points_and_what_is_not_a_number(library: ctypes.CDLL, number: float) -> None:
    boxes = draw(2, 100, size=1.0)
    boxes[:, ::7, 2:] = boxes[:, ::7, :2]  # without area
    boxes[:, 3::9, 2:] = boxes[:, 3::9, :2] - 0.5  # turned round
    for coordinate in range(4):
        boxes[:, 5 + coordinate :: 13, coordinate] = number
    check_equal(library, boxes, 0.1)
    check_equal(library, torch.full((1, 70, 4), number), 0.5)


def test_boxes_that_stand_for_padding_strike_out_nothing(library: ctypes.CDLL) -> None:
    boxes = draw(2, 100, size=1.0)
    boxes[1, 40:] = 0.0
    mask = check_equal(library, boxes, 0.5)
    assert mask[1, 40:].all()
    assert torch.equal(mask[1, :40], nms_mask(boxes[1:, :40], 0.5)[0])
