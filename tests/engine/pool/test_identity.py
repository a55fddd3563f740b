"""An item's hashes: the same everywhere and in every version, and independent of one another."""

import hashlib

import numpy as np
import pytest

from engine.pool import identity
from engine.pool.identity import ALONE, Groups, content_hash, draw_of, fold_of, held_out_of, item_id_of

SALT = "00112233445566778899aabbccddeeff"
ITEM = ("folder/a-000.tar", "ü/0001")
WHOLE = 2**64
NUM_ITEMS = 20_000
SHARE = 0.3


def test_the_hashes_of_an_item_stay_what_they_are() -> None:
    """Scores, labels and the batches at vendors refer to them, so another version must find the same."""
    fold, level = 5749985351170088475, 0.0970926963951
    assert fold_of(*ITEM, WHOLE) == fold
    assert [fold_of(*ITEM, num_folds) for num_folds in (1, 2, 5)] == [0, fold % 2, fold % 5]
    assert [held_out_of(*ITEM, share) for share in (0, level - 1e-9, level + 1e-9, 1)] == [False, False, True, True]
    assert (draw_of(*ITEM, 0), draw_of(*ITEM, 7)) == (2974876220923004625, 17673705864491951132)
    assert item_id_of(*ITEM, SALT) == "b7ffc2cfbd6c5b61711daab1613f466b"
    assert content_hash(b"an image") == hashlib.blake2b(b"an image", digest_size=16).hexdigest()


@pytest.mark.parametrize("groups", [ALONE, Groups("^(.)")])
def test_many_items_have_the_hashes_that_they_have_one_by_one(groups: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_AT_ONCE", 7)
    items = [("a.tar", f"ü{n}") for n in range(20)] + [ITEM]
    folds = [fold_of(*item, 5, 3, groups) for item in items]
    assert identity.folds_of(iter(items), 5, 3, groups).tolist() == folds
    for share in (0, 0.3, 1):
        found = identity.are_held_out(iter(items), share, 3, groups)
        assert found.tolist() == [held_out_of(*item, share, 3, groups) for item in items]
    assert not len(identity.folds_of([], 5))


def test_an_item_is_its_shard_and_its_key_and_not_the_two_joined() -> None:
    for one, other in ((("ab", "c"), ("a", "bc")), (("a", "b"), ("b", "a"))):
        assert fold_of(*one, WHOLE) != fold_of(*other, WHOLE)
        assert draw_of(*one, 0) != draw_of(*other, 0)
        assert item_id_of(*one, SALT) != item_id_of(*other, SALT)
    assert item_id_of(*ITEM, SALT) != item_id_of(*ITEM, SALT[::-1])


@pytest.mark.parametrize("number", ["fold", "draw", "draw of another seed", "name"])
def test_what_is_held_out_is_independent_of_every_other_hash(number: str) -> None:
    """The held-out share is the same in each quarter of the other number's range, to five standard errors."""
    hashed = {
        "fold": lambda key: fold_of("a.tar", key, WHOLE),
        "draw": lambda key: draw_of("a.tar", key, 0),
        "draw of another seed": lambda key: draw_of("a.tar", key, 1),
        "name": lambda key: int(item_id_of("a.tar", key, SALT)[:16], 16),
    }[number]
    keys = [f"{n:06d}" for n in range(NUM_ITEMS)]
    quarter_N = np.array([4 * hashed(key) // WHOLE for key in keys])
    is_held_out_N = np.array([held_out_of("a.tar", key, SHARE) for key in keys])
    for quarter in range(4):
        held_out = is_held_out_N[quarter_N == quarter]
        assert abs(held_out.mean() - SHARE) < 5 * (SHARE * (1 - SHARE) / len(held_out)) ** 0.5
        assert abs(len(held_out) - NUM_ITEMS / 4) < 5 * (NUM_ITEMS * 3 / 16) ** 0.5


def test_draws_of_two_seeds_and_folds_are_independent() -> None:
    keys = [f"{n:06d}" for n in range(NUM_ITEMS)]
    numbers = np.array(
        [[fold_of("a.tar", k, WHOLE), draw_of("a.tar", k, 0), draw_of("a.tar", k, 1)] for k in keys], np.float64
    )
    off_diagonal = np.corrcoef(numbers.T)[np.triu_indices(3, 1)]
    assert np.abs(off_diagonal).max() < 5 / NUM_ITEMS**0.5
