"""Copies between host and device."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from hdetr_d2.transfer import pack, to_device, to_host, unpack

TENSORS = [torch.randn(3, 5), torch.arange(7, dtype=torch.int32), torch.arange(9, dtype=torch.int16).view(3, 3)]


def test_packed_tensors_come_out_as_they_went_in() -> None:
    for before, after in zip(TENSORS, unpack(pack(TENSORS), TENSORS), strict=True):
        assert torch.equal(before, after)
        assert before.dtype == after.dtype


def test_tensors_that_are_there_are_not_copied() -> None:
    device = torch.device("cpu")
    assert all(after is before for before, after in zip(TENSORS, to_device(TENSORS, device), strict=True))
    assert all(after is before for before, after in zip(TENSORS, to_host(TENSORS), strict=True))


def test_the_way_to_another_device_and_back_keeps_order_shape_and_type() -> None:
    with FakeTensorMode():
        mixed = [torch.ones(3, dtype=torch.bool), torch.zeros(2, 3), torch.zeros(1, dtype=torch.int64, device="cuda")]
        there = to_device(mixed, torch.device("cuda"))
        back = to_host(there)
    assert there[2] is mixed[2]
    assert all(x.device.type == "cuda" for x in there)
    assert all(x.device.type == "cpu" for x in back)
    kinds = [[(x.shape, x.dtype) for x in tensors] for tensors in (mixed, there, back)]
    assert kinds[0] == kinds[1] == kinds[2]
