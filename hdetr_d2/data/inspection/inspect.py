"""All that is looked for in a dataset."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hdetr_d2.annotations import DatasetError, frequency_group
from hdetr_d2.annotations.layouts import Layout, recognise
from hdetr_d2.annotations.layouts.layout import images_below

from .alike import same_files, same_pictures
from .boxes import box_findings
from .findings import Finding, found
from .pictures import Looked, look_at
from .splits import InspectedSplit, read_splits


@dataclass(frozen=True)
class Inspection:
    """What a dataset is, and what was found in it.

    Args:
        layout: of the dataset.
        splits: as they were read.
        findings: what hurts first.
    """

    layout: Layout
    splits: tuple[InspectedSplit, ...]
    findings: tuple[Finding, ...]

    @property
    def hurts(self) -> bool:
        """Whether something was found that makes training worse, or impossible."""
        return any(finding.severity == "hurts" for finding in self.findings)


def inspect_dataset(path: str | os.PathLike[str], *, pixels: bool = True) -> Inspection:
    """Look at a dataset of any layout.

    Args:
        path: as `recognise` takes it.
        pixels: decode the images, to find broken ones and those that are there twice.

    Raises:
        UserError: nothing can be trained with it: no known layout, a file wrong as a whole, no image or no box usable.
    """
    layout = recognise(path)
    splits = read_splits(layout)
    looked = {split.name: _look(split) if pixels else [] for split in splits}
    findings: list[Finding] = []
    for split in splits:
        findings += [*split.findings, *_image_findings(split, looked[split.name]), *box_findings(split)]
        findings += _class_findings(split)
    findings += _unlisted(layout, splits)
    findings += _between(splits)
    findings += _twice(splits, looked)
    for split in splits:
        _require_usable(layout, split, looked[split.name])
    return Inspection(layout, tuple(splits), tuple(sorted(findings, key=lambda finding: finding.severity == "note")))


def _look(split: InspectedSplit) -> list[Looked]:
    """In the order of the split's images; of those that do not exist, nothing."""
    rows = np.flatnonzero(split.exists)
    sizes = split.sizes[rows] if split.says_size else None
    seen = dict(zip(rows.tolist(), look_at([split.images[row] for row in rows], sizes, what=split.name)))
    nothing = Looked("", np.zeros((8, 8, 3), dtype=np.uint8), 0)
    return [seen.get(row, nothing) for row in range(len(split.images))]


def _image_findings(split: InspectedSplit, looked: Sequence[Looked]) -> list[Finding]:
    empty = np.ones(len(split.images), dtype=bool)
    empty[split.box_images] = False
    missing = [str(image) for image, there in zip(split.images, split.exists) if not there]
    name = split.name
    return [
        *found("missing-images", "hurts", name, "images are annotated but not there", missing),
        *found(
            "unusable-images",
            "hurts",
            name,
            "images cannot be read, or have another size than their annotations say",
            (each.error for each in looked if each.error),
        ),
        *found(
            "empty-images",
            "note",
            name,
            f"of {len(split.images)} images have no object",
            (str(image) for image, lonely in zip(split.images, empty) if lonely),
        ),
    ]


def _unlisted(layout: Layout, splits: Sequence[InspectedSplit]) -> list[Finding]:
    """Images in the folders of a COCO dataset that no annotation file lists."""
    if layout.name != "coco":
        return []
    listed = {str(image.resolve()) for split in splits for image in split.images}
    folders = sorted({raw.folder for raw in layout.splits.values()})
    images = sorted({image for folder in folders for image in images_below(folder)})
    unlisted = [str(image) for image in images if str(image.resolve()) not in listed]
    return found("unlisted-images", "note", "", "images are in no annotation file's list", unlisted)


def _class_findings(split: InspectedSplit) -> list[Finding]:
    if split.name != "train":
        return []
    counts = image_counts(split)
    absent = [label for label, count in zip(split.class_names, counts) if not count]
    return found("classes-without-objects", "hurts", "train", "classes have no object to learn from", absent)


def image_counts(split: InspectedSplit) -> list[int]:
    """In how many images each class is."""
    pairs = np.unique(np.stack([split.box_classes, split.box_images]), axis=1)
    return np.bincount(pairs[0], minlength=len(split.class_names)).tolist()


def groups(split: InspectedSplit) -> tuple[str, ...]:
    """LVIS's group of each class, as its file says or as the images of this split count."""
    return split.declared_groups or tuple(frequency_group(count) for count in image_counts(split))


def _between(splits: Sequence[InspectedSplit]) -> list[Finding]:
    """Class tables that differ: the position of a class in its table is what the model learns."""
    first, findings = splits[0], []
    for other in splits[1:]:
        if other.class_names != first.class_names:
            odd = sorted(set(first.class_names) ^ set(other.class_names)) or ["the same names in another order"]
            what = f"classes differ between {first.name} and {other.name}"
            findings += found("different-classes", "hurts", "", what, odd)
    return findings


def _twice(splits: Sequence[InspectedSplit], looked: dict[str, list[Looked]]) -> list[Finding]:
    """Images that are there several times, within a split and between splits."""
    owner = [split for split in splits for _ in looked[split.name]]
    images = [image for split in splits for image in split.images[: len(looked[split.name])]]
    every = list(itertools.chain.from_iterable(looked[split.name] for split in splits))
    findings = []
    for pairs, kind, how in (
        (same_files(every), "duplicate-images", "are the same file"),
        (same_pictures(every), "similar-images", "look the same"),
    ):
        texts: dict[tuple[str, str], list[str]] = {}
        for one, other in pairs:
            places = owner[one].name, owner[other].name
            texts.setdefault(places, []).append(f"{images[one]} = {images[other]}")
        for (one_split, other_split), examples in texts.items():
            if one_split == other_split:
                findings += found(kind, "note", one_split, f"images {how} as another one", examples)
            else:
                what = f"images of {other_split} {how} as one of {one_split}: what is measured there was trained on"
                findings += found(f"{kind}-between-splits", "hurts", "", what, examples)
    return findings


def _require_usable(layout: Layout, split: InspectedSplit, looked: Sequence[Looked]) -> None:
    """Raises: nothing of a split can be used."""
    wrong = next((f.examples[0] for f in split.findings if f.kind == "wrong-rows" and f.examples), "")
    first = f"; the first that is wrong: {wrong}" if wrong else ""
    if not split.exists.any():
        raise DatasetError(f"{layout.root}: not one of the {len(split.images)} images of {split.name} is there{first}")
    if looked and all(each.error or not there for each, there in zip(looked, split.exists)):
        error = next(each.error for each in looked if each.error)
        raise DatasetError(f"{layout.root}: no image of {split.name} can be used; the first: {error}")
    if not len(split.boxes):
        raise DatasetError(f"{layout.root}: {split.name} has no usable box{first}")
