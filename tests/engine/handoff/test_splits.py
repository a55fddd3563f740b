"""Parts of a labelled set, as a person types them."""

import pytest

from engine.errors import ConfigError
from engine.handoff.splits import shares_of


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train=0.8,val=0.1", "the shares sum to 0.9; they must sum to 1"),
        ("train=0.8,train=0.2", "train is there twice"),
        ("train=1.2,val=-0.2", "'train=1.2' is no part"),
        ("train", "'train' is no part; write NAME=SHARE"),
        ("train=nan", "is no part"),
        ("../train=1", "is no part"),
        ("", "is no part"),
        ("train=1,val=0", "'val=0' is no part"),
    ],
)
def test_wrong_splits_are_refused(split: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shares_of(split)


def test_a_split_is_read_exactly() -> None:
    # As binary fractions these do not sum to 1.
    assert list(shares_of(" a=0.1, b=0.2,c=0.7")) == ["a", "b", "c"]
