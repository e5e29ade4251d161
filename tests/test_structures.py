"""The targets of a batch against a walk through its images."""

import pytest
import torch

from hdetr_d2.structures import BatchedTargets, Targets


def draw(*counts: int) -> list[Targets]:
    return [Targets(torch.randint(9, (n,)), torch.rand(n, 4), torch.tensor([3]), torch.tensor([5, 6])) for n in counts]


@pytest.mark.parametrize("counts", [(3, 0, 2), (0, 0), (0, 4), (1,), ()])
def test_what_is_at_an_image_s_offset_is_its_own(counts: tuple[int, ...]) -> None:
    images = draw(*counts)
    batch = BatchedTargets.of(images)
    assert batch.counts == counts
    assert len(batch) == len(counts) == len(batch.offsets)
    assert len(batch.labels) == len(batch.boxes) == sum(counts)
    assert batch.boxes.shape[1:] == (4,)
    assert list(batch) == images
    assert list(batch[1:]) == images[1:]
    for image, count, offset in zip(images, batch.counts, batch.offsets):
        assert torch.equal(batch.labels[offset : offset + count], image.labels)
        assert torch.equal(batch.boxes[offset : offset + count], image.boxes)


def test_what_is_batched_already_is_not_counted_again() -> None:
    batch = BatchedTargets.of(draw(2, 1))
    assert BatchedTargets.of(batch) is batch


def test_other_labels_reach_the_images_and_leave_what_is_known_of_them() -> None:
    batch = BatchedTargets.of(draw(2, 0, 1)).with_labels(torch.tensor([7, 8, 9]))
    assert [image.labels.tolist() for image in batch] == [[7, 8], [], [9]]
    assert batch.labels.tolist() == [7, 8, 9]
    assert batch.offsets == (0, 2, 2)
    assert all(image.negatives is not None and image.not_exhaustive is not None for image in batch)


def test_objects_are_of_one_class_for_which_every_image_was_searched() -> None:
    images = draw(2, 0, 1)
    batch = BatchedTargets.of(images).as_objects()
    assert batch.labels.tolist() == [0, 0, 0]
    assert [image.labels.tolist() for image in batch] == [[0, 0], [], [0]]
    assert all(image.negatives is None and image.not_exhaustive is None for image in batch)
    assert all(torch.equal(ours.boxes, image.boxes) for ours, image in zip(batch, images))
