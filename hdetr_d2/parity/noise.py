"""Denoising with the random numbers of a file."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hdetr_d2.modeling import DenoisingQueries
from hdetr_d2.modeling.denoising import NoiseDraws, NoisedTargets
from hdetr_d2.structures import Targets

from .archive import Archive
from .check import NOISE_TOLERANCE, Check, compare, largest
from .errors import ParityError


def feed_noise(denoising: DenoisingQueries, draws: NoiseDraws) -> None:
    """Make denoising draw the numbers of a file in place of its own."""

    def draw(num_images: int, num_slots: int) -> NoiseDraws:
        if draws.flip.shape != (num_images, num_slots):
            raise ParityError(
                f"the options give {num_slots} denoising queries in each of {num_images} images, "
                f"but the file has noise for {tuple(draws.flip.shape)}"
            )
        return draws

    denoising.draw = draw  # type: ignore[method-assign]  # of one object


def slot_draws(data: Archive, targets: Sequence[Targets]) -> NoiseDraws:
    """Draws that a file has for every slot: ``dn/rand/{label_u,new_label,sign01,part01}``, each where it was drawn."""
    batch, slots = data.shaped("dn/labels", len(targets), None).shape
    draws = _none(batch, slots)
    flip, label, shift = draws.flip, draws.label, draws.shift
    if "dn/rand/label_u" in data:
        flip = data.shaped("dn/rand/label_u", batch, slots)
        label = data.shaped("dn/rand/new_label", batch, slots).long()
    if "dn/rand/part01" in data:
        sign = data.shaped("dn/rand/sign01", batch, slots, 4)
        shift = data.shaped("dn/rand/part01", batch, slots, 4) * (2 * sign - 1)
    return NoiseDraws(flip, label, shift)


def target_draws(data: Archive, targets: Sequence[Targets], label_noise: float) -> NoiseDraws:
    """Draws that a file has for every noised target, in the authors' order.

    They are ``dn/draw/label_p``, ``new_label`` for the chosen ones, and either ``sign01`` and ``part`` or ``box_u``,
    each where it was drawn.

    Args:
        data: arrays of the file.
        targets: one an image.
        label_noise: the probability that labels are replaced with.
    """
    batch, slots = data.shaped("dn/labels", len(targets), None).shape
    draws = _none(batch, slots)
    if "dn/flat_image" not in data:  # nothing to noise
        return draws
    image, slot = data["dn/flat_image"].long(), data["dn/flat_slot"].long()
    if len(slot) and (int(slot.max()) >= slots or int(image.max()) >= batch or len(slot) != len(image)):
        raise ParityError("dn/flat_slot and dn/flat_image name slots that dn/labels does not have")
    if "dn/draw/label_p" in data:
        probability = data.shaped("dn/draw/label_p", len(slot))
        draws.flip[image, slot] = probability
        chosen = probability < label_noise
        new = data["dn/draw/new_label"].long()
        new = new[chosen] if len(new) == len(slot) else new  # some of the authors draw one for every slot
        if len(new) != int(chosen.sum()):
            raise ParityError(
                f"dn/draw/new_label has {len(new)} labels, but with the noise of the options {int(chosen.sum())} change"
            )
        draws.label[image[chosen], slot[chosen]] = new
    if "dn/draw/part" in data:
        sign = data.shaped("dn/draw/sign01", len(slot), 4)
        draws.shift[image, slot] = data.shaped("dn/draw/part", len(slot), 4) * (2 * sign - 1)
    elif "dn/draw/box_u" in data:
        draws.shift[image, slot] = 2 * data.shaped("dn/draw/box_u", len(slot), 4) - 1
    return draws


def _none(batch: int, slots: int) -> NoiseDraws:
    """Draws that change no label and no box."""
    return NoiseDraws(
        flip=torch.ones(batch, slots),
        label=torch.zeros(batch, slots, dtype=torch.int64),
        shift=torch.zeros(batch, slots, 4),
    )


def noise_checks(noised: NoisedTargets, data: Archive) -> Iterator[Check]:
    """Noised targets against ``dn/{labels,boxes_cxcywh,valid,is_positive,gt_index}``, each where the file has it.

    Empty slots have label -1 or K, and any box.
    """
    valid = noised.valid
    labels = data.shaped("dn/labels", *valid.shape)
    yield Check("dn/labels", largest(_masked(noised.labels, valid), _masked(labels, valid)), 0.0)
    boxes = data.shaped("dn/boxes_cxcywh", *valid.shape, 4)
    difference = largest(_masked(noised.boxes, valid), _masked(boxes, valid))
    yield Check("dn/boxes_cxcywh", difference, NOISE_TOLERANCE)
    for key, ours in (("valid", valid), ("is_positive", noised.positive), ("gt_index", noised.gt_index)):
        if f"dn/{key}" in data:
            yield compare(f"dn/{key}", ours, data, 0.0)
    for key in ("num_groups", "num_group"):
        if f"dn/{key}" in data:
            yield compare(f"dn/{key}", torch.tensor(noised.num_groups), data, 0.0)


def _masked(values: Tensor, valid: Tensor) -> Tensor:
    return values * (valid if values.dim() == 2 else valid[..., None])
