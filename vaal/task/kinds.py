"""The kinds of task learners. Without torch, so that a command can read its configuration at once."""

from typing import Literal

Kind = Literal["classes", "labels", "segmentation"]
"""Of the answers: one of C classes an image (softmax), each of C labels or not (sigmoid), a class a pixel (softmax)."""

VOID = 255
"""The class number in masks of what is not judged and not learned."""
