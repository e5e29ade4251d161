"""A tiny model learns two pictures by heart: everything from pixels to detections works together."""

from typing import Any

import pytest
import torch
from detectron2.structures import Boxes, Instances
from torchvision.ops import box_iou

# Two pictures of filled rectangles: (class, x0, y0, x1, y1) in pixels of 128 x 128.
PICTURES = [
    [(0, 8, 16, 56, 48), (1, 72, 64, 120, 120)],
    [(1, 16, 72, 64, 112), (0, 80, 8, 112, 56), (2, 72, 80, 120, 104)],
]
COLOURS = [(230, 30, 30), (30, 230, 30), (30, 30, 230)]
STEPS = 200


def paint(objects: list[tuple[int, int, int, int, int]]) -> dict[str, Any]:
    image = torch.full((3, 128, 128), 120, dtype=torch.uint8)
    for label, x0, y0, x1, y1 in objects:
        image[:, y0:y1, x0:x1] = torch.tensor(COLOURS[label], dtype=torch.uint8)[:, None, None]
    instances = Instances((128, 128))
    instances.gt_boxes = Boxes(torch.tensor([o[1:] for o in objects], dtype=torch.float32))
    instances.gt_classes = torch.tensor([o[0] for o in objects])
    return {"image": image, "instances": instances}


@pytest.mark.parametrize("variant", ["base", "hybrid"])
def test_two_pictures_are_learned_by_heart(build_tiny, variant: str) -> None:
    model = build_tiny(variant, perturb=0.0)
    batch = [paint(objects) for objects in PICTURES]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=STEPS)
    history = []
    for _ in range(STEPS):
        total = sum(model.train()(batch).values())
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        history.append(total.item())
    assert history[-1] < 0.25 * history[0]
    for picture, output in zip(batch, model.eval()(batch)):
        found = output["instances"]
        for box, label in zip(picture["instances"].gt_boxes.tensor, picture["instances"].gt_classes):
            good = found[(found.pred_classes == label) & (found.scores > 0.4)]
            assert len(good), f"class {int(label)} of {variant} not found"
            assert box_iou(good.pred_boxes.tensor, box[None]).max() > 0.7
