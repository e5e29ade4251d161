"""Pictures of which resizing would leave nothing."""

import numpy as np
import pytest
from detectron2.data import transforms as T

from hdetr_d2.data import detr_test_augmentation, detr_train_augmentation


@pytest.mark.parametrize("size", [(3, 2000), (2000, 3), (1, 1), (1, 5000), (7, 1)])
@pytest.mark.parametrize("short_side", [1, 96, 800])
def test_a_strip_keeps_a_pixel_of_its_short_side(size: tuple[int, int], short_side: int) -> None:
    image = np.full((*size, 3), 7, dtype=np.uint8)
    lists = [detr_test_augmentation(short_side=short_side)]
    lists += [detr_train_augmentation(short_side=short_side, crop_probability=p) for p in (0.0, 1.0)]
    for augmentations in lists:
        aug_input = T.AugInput(image, boxes=np.array([[0.0, 0.0, size[1], size[0]]]))
        T.AugmentationList(augmentations)(aug_input)
        assert min(aug_input.image.shape[:2]) >= 1
        assert (aug_input.image == 7).all()
        assert np.isfinite(aug_input.boxes).all()
