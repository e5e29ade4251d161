"""An inspection as text, and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .inspect import Inspection, groups, image_counts
from .splits import InspectedSplit

LARGEST_TABLE = 40
"""Classes that are listed one by one; of more, the most and the least frequent."""

_GROUP_NAMES = {"f": "frequent", "c": "common", "r": "rare"}


def as_text(inspection: Inspection, *, examples: int = 5) -> str:
    """What a person reads: each split, the classes, then the findings.

    Args:
        inspection: the dataset.
        examples: of each finding.
    """
    lines = [f"{inspection.layout.root}: a dataset in {inspection.layout.name.upper()} layout"]
    for split in inspection.splits:
        lines += ["", *_split(split)]
    lines += ["", *_classes(inspection.splits)]
    for severity, title in (("hurts", "problems"), ("note", "notes")):
        chosen = [finding for finding in inspection.findings if finding.severity == severity]
        lines += ["", f"{title}: none" if not chosen else f"{title}:"]
        for finding in chosen:
            where = f"{finding.split}: " if finding.split else ""
            lines.append(f"  {where}{finding.what}: {finding.count}")
            lines += [f"    {text}" for text in finding.examples[:examples]]
            if 0 < len(finding.examples[:examples]) < finding.count:
                lines.append(f"    and {finding.count - len(finding.examples[:examples])} more")
    return "\n".join(lines)


def _split(split: InspectedSplit) -> Iterator[str]:
    yield f"{split.name}: {len(split.images)} images, {len(split.boxes)} boxes"
    known = split.sizes[split.sizes.all(axis=1)]
    if len(known):
        widths, heights = (_quantiles(known[:, side]) for side in (0, 1))
        yield f"  widths {widths}; heights {heights} (smallest, median, largest)"
    if len(split.boxes):
        sides = np.sqrt((split.boxes[:, 2:] - split.boxes[:, :2]).prod(axis=1))
        small, medium = (sides < 32).mean(), ((sides >= 32) & (sides < 96)).mean()
        per_image = np.bincount(split.box_images, minlength=len(split.images))
        yield f"  boxes of an image: {_quantiles(per_image)}; root of their area: {_quantiles(sides)} pixels"
        yield f"  small, medium, large as COCO has it: {small:.0%}, {medium:.0%}, {1 - small - medium:.0%}"


def _quantiles(values: NDArray[Any]) -> str:
    return ", ".join(f"{value:.0f}" for value in (values.min(), np.median(values), values.max()))


def _classes(splits: Sequence[InspectedSplit]) -> Iterator[str]:
    first = splits[0]
    counts, group = image_counts(first), groups(first)
    shares = [f"{group.count(key)} {name}" for key, name in _GROUP_NAMES.items()]
    yield f"{len(first.class_names)} classes, by LVIS's groups of {first.name} images: {', '.join(shares)}"
    order = sorted(range(len(counts)), key=lambda row: -counts[row])
    shown = order if len(order) <= LARGEST_TABLE else [*order[: LARGEST_TABLE // 2], -1, *order[-LARGEST_TABLE // 2 :]]
    width = max((len(first.class_names[row]) for row in shown if row >= 0), default=0)
    boxes = np.bincount(first.box_classes, minlength=len(counts))
    largest = max(counts, default=0)
    for row in shown:
        if row < 0:
            yield "  ..."
            continue
        bar = "#" * round(30 * counts[row] / max(1, largest))
        name = first.class_names[row]
        yield f"  {group[row]} {name:<{width}} {counts[row]:>7} images {boxes[row]:>8} boxes {bar}".rstrip()


def as_json(inspection: Inspection) -> dict[str, Any]:
    """The same for programs."""
    return {
        "root": str(inspection.layout.root),
        "layout": inspection.layout.name,
        "splits": [
            {
                "name": split.name,
                "images": len(split.images),
                "boxes": len(split.boxes),
                "classes": [
                    {"name": name, "images": images, "group": group}
                    for name, images, group in zip(split.class_names, image_counts(split), groups(split))
                ],
            }
            for split in inspection.splits
        ],
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.severity,
                "split": finding.split,
                "what": finding.what,
                "count": finding.count,
                "examples": list(finding.examples),
            }
            for finding in inspection.findings
        ],
    }
