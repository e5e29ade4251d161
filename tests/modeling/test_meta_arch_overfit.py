"""A tiny model of every kind learns eight pictures by heart: everything from pixels to detections works together."""

from typing import Any

import pytest
import torch
from detectron2.structures import Boxes, Instances
from torchvision.ops import box_iou

from tests.modeling.family import ONE_TO_MANY, ONE_TO_ONE, build

COLOURS = torch.tensor([(230, 30, 30), (30, 230, 30), (30, 30, 230)], dtype=torch.uint8)
SIDE = 64
STEPS = {"dino": 200}
"""How long a model takes, where that is not 120 steps."""


def paint(number: int) -> dict[str, Any]:
    """One or two filled rectangles on grey, their colour their class."""
    generator = torch.Generator().manual_seed(number)
    image = torch.full((3, SIDE, SIDE), 120, dtype=torch.uint8)
    boxes, classes = [], []
    halves = [(0, 30), (34, 64)] if number % 2 else [(0, 64)]
    for low, high in halves:
        width, height = torch.randint(12, 27, (2,), generator=generator).tolist()
        x0 = int(torch.randint(low, high - width + 1, (1,), generator=generator))
        y0 = int(torch.randint(0, SIDE - height + 1, (1,), generator=generator))
        label = int(torch.randint(3, (1,), generator=generator))
        image[:, y0 : y0 + height, x0 : x0 + width] = COLOURS[label][:, None, None]
        boxes.append((x0, y0, x0 + width, y0 + height))
        classes.append(label)
    instances = Instances((SIDE, SIDE))
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
    instances.gt_classes = torch.tensor(classes)
    return {"image": image, "instances": instances}


def found(picture: dict[str, Any], detections: Instances) -> list[float]:
    """For every object the IoU of the best detection of its class, among twice as many detections as objects."""
    objects = picture["instances"]
    first = detections[detections.scores.argsort(descending=True)[: 2 * len(objects)]]
    overlap = box_iou(objects.gt_boxes.tensor, first.pred_boxes.tensor)
    same = objects.gt_classes[:, None] == first.pred_classes
    return (overlap * same).amax(dim=1).tolist()


Case = tuple[str, str | None, dict[str, Any]]
CASES: list[Case] = [(name, None, {}) for name in ONE_TO_ONE + ONE_TO_MANY]
CASES += [
    ("deformable_detr_plus_plus", "proposals", {"distinct": 0.5}),
    ("deformable_detr_plus_plus", "branch, encoder", {"distinct": 0.5}),
    ("rtdetr", "proposals", {"distinct": 0.5, "supervise": "ranked"}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(filter(None, case[:2])))
def test_eight_pictures_are_learned_by_heart(case: Case) -> None:
    name, scheme, query_source = case
    model = build(name, scheme, perturb=0.0, query_source=query_source)
    batch = [paint(number) for number in range(8)]
    steps = STEPS.get(name, 120)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for _ in range(steps):
        total = sum(model.train()(batch).values())
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        outputs = model.eval()(batch)
    overlaps = [iou for picture, output in zip(batch, outputs) for iou in found(picture, output["instances"])]
    # A dozen objects; an untrained model comes to 0.1 on average.
    assert sum(overlaps) / len(overlaps) > 0.7, overlaps
