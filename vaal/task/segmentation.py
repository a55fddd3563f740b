"""A class for each pixel: the loss on masks, logits and classes at the masks' size, and mIoU.

Masks hold class numbers from 0, and VOID where nobody says what is there. A prediction is compared with its mask at the
mask's own size: logits are resized bilinearly, masks never.

Shape suffixes: B batch, C classes, P pixels of an image; H, W the sides of a mask, h, w those of a map of logits.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vaal.task.kinds import VOID


def mask_loss(logit_BChw: Tensor, mask_BHW: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy in nats, a scalar: summed over the pixels that are not void, and divided by the number of all.

    So every valid pixel counts alike, whatever batch its image comes in, and an image that is all void adds 0.

    Args:
        mask_BHW: class numbers, int64.
        smoothing: share of the target that is spread evenly over the classes.
    """
    logit_BCHW = F.interpolate(logit_BChw, size=mask_BHW.shape[1:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(logit_BCHW, mask_BHW, ignore_index=VOID, label_smoothing=smoothing, reduction="sum")
    return total / mask_BHW.numel()


def logits_at(logit_BChw: Tensor, place_BP: Tensor, height: int, width: int) -> Tensor:
    """The logits (B, P, C) at some pixels of an image of this size, as `F.interpolate` resizes them.

    Args:
        place_BP: places of the pixels, row by row from 0 to height * width - 1, int64.
    """
    row_BP, column_BP = (at.to(logit_BChw) for at in (place_BP // width, place_BP % width))
    x_BP, y_BP = (2 * (at + 0.5) / side - 1 for at, side in ((column_BP, width), (row_BP, height)))
    grid_B1P2 = torch.stack([x_BP, y_BP], dim=-1)[:, None]
    found_BC1P = F.grid_sample(logit_BChw, grid_B1P2, mode="bilinear", padding_mode="border", align_corners=False)
    return found_BC1P[:, :, 0].transpose(1, 2)


def classes_at(logit_Chw: Tensor, height: int, width: int) -> Tensor:
    """The most likely class (height, width) int64 of each pixel of an image of this size; of equal ones the first.

    In the memory of a few images, however many classes there are.
    """
    best, found = None, torch.zeros(height, width, dtype=torch.int64, device=logit_Chw.device)
    for number, logit_hw in enumerate(logit_Chw):
        logit = F.interpolate(logit_hw[None, None], size=(height, width), mode="bilinear", align_corners=False)[0, 0]
        if best is None:
            best = logit
            continue
        is_better = logit > best
        found[is_better], best = number, torch.maximum(best, logit)
    return found


def confusion(class_P: Tensor, mask_P: Tensor, num_classes: int) -> Tensor:
    """Counts of pixels (C, C) int64 by their class in the mask (rows) and the predicted one (columns), without void.

    Those of all images are summed: that is exact, in any order and over any workers.
    """
    is_valid_P = mask_P != VOID
    pair_P = mask_P[is_valid_P].long() * num_classes + class_P[is_valid_P].long()
    return torch.bincount(pair_P, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_ious(count_CC: Tensor) -> list[float | None]:
    """Intersection over union of each class: the pixels that are rightly predicted to be of it, as a share of those
    that are of it or are predicted to be. None for a class that is in no mask."""
    right_C, true_C, predicted_C = count_CC.diagonal(), count_CC.sum(dim=1), count_CC.sum(dim=0)
    union_C = true_C + predicted_C - right_C
    values = zip(right_C.tolist(), union_C.tolist(), true_C.tolist(), strict=True)
    return [right / union if true else None for right, union, true in values]


def mean_iou(count_CC: Tensor) -> float | None:
    """The mean of `class_ious` over the classes that are in some mask; None if none is."""
    found = [value for value in class_ious(count_CC) if value is not None]
    return sum(found) / len(found) if found else None
