"""Work in parts: nothing left out or put elsewhere, merged in order in any number of parts."""

from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.selection import parts


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 60), st.integers(1, 9))
def test_parts_are_consecutive_whole_and_not_empty(
    monkeypatch: pytest.MonkeyPatch, rows: list[int], part_rows: int, part_files: int
) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", part_rows)
    monkeypatch.setattr(parts, "PART_FILES", part_files)
    items = list(range(len(rows)))
    dealt = parts.deal(items, rows)
    assert [item for part in dealt for item in part] == items
    assert all(dealt)
    assert len(dealt) <= max(1, sum(rows) // part_rows, len(rows) // part_files)


def test_parts_are_of_about_equal_work() -> None:
    dealt = parts.deal(list(range(1000)), [100_000] * 1000)
    assert len(dealt) == 8
    assert {len(part) for part in dealt} == {125}


def test_what_tasks_give_is_merged_in_their_order(local_ray: None) -> None:
    letters = [chr(97 + n % 26) for n in range(70)]
    shares: list[float] = []

    # Defined here, they travel to the workers by value.
    def joined(words: Iterable[str]) -> str:
        return "".join(words)

    found = parts.map_reduce(lambda part: joined(part), joined, [[letter] for letter in letters], shares.append)
    assert found == "".join(letters)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_results_come_in_the_order_of_the_items_and_few_wait() -> None:
    begun: list[int] = []

    def square(number: int) -> int:
        begun.append(number)
        return number * number

    results = parts.each(square, range(100), 2)
    assert next(results) == 0
    assert len(begun) <= 16
    assert list(results) == [number * number for number in range(1, 100)]
