"""What labels are taken for, where the user does not say."""

import pytest

from engine.models.fitting import MOST_CLASSES, _are_classes


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["cat", "dog"] * 10, True),
        # A rare class is one, too.
        (["cat", "dog"] * 10 + ["owl"], True),
        (["cat"] * 10, False),
        ([f"a note on image {n}" for n in range(50)], False),
        (["ok"] * 50 + [f"a note on image {n}" for n in range(14)], False),
        ([str(n // 2) for n in range(2 * MOST_CLASSES + 2)], False),
        ([], False),
    ],
)
def test_labels_are_classes_if_most_images_share_theirs(labels: list[str], expected: bool) -> None:
    assert _are_classes(labels) == expected
