"""The round-robin of clusters against a loop that does what the definition says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaal.diversity.clusters import round_robin

labels = st.lists(st.integers(-2, 6), max_size=60)


def naive(clusters: list[int], b: int) -> list[int]:
    """Queues, the smallest first; each in turn gives its first item."""
    queues = [[i for i, label in enumerate(clusters) if label == wanted] for wanted in set(clusters)]
    queues.sort(key=lambda queue: (len(queue), queue[0]))
    chosen: list[int] = []
    while len(chosen) < b:
        chosen += [queue.pop(0) for queue in queues if queue]
    return chosen[:b]


@given(labels, st.data())
def test_it_is_the_naive_round_robin(clusters: list[int], data: st.DataObject) -> None:
    b = data.draw(st.integers(0, len(clusters)))
    assert round_robin(np.array(clusters, np.int32), b).tolist() == naive(clusters, b)


def test_small_clusters_come_first_and_equals_by_their_first_candidate() -> None:
    clusters = np.array([3, 3, 0, 3, 1, 0, 1, 9], np.int32)
    assert round_robin(clusters, 8).tolist() == [7, 2, 4, 0, 5, 6, 1, 3]


@given(labels, st.permutations(range(-2, 7)))
def test_names_of_clusters_do_not_matter(clusters: list[int], names: list[int]) -> None:
    renamed = [names[label + 2] for label in clusters]
    b = len(clusters)
    assert (round_robin(np.array(renamed, np.int32), b) == round_robin(np.array(clusters, np.int32), b)).all()


def test_one_cluster_is_the_plain_choice() -> None:
    assert round_robin(np.zeros(50, np.int32), 20).tolist() == list(range(20))


@pytest.mark.parametrize("b", [-1, 5])
def test_a_wrong_b_is_refused(b: int) -> None:
    with pytest.raises(ValueError, match=f"b must be from 0 to 4, got {b}"):
        round_robin(np.zeros(4, np.int32), b)
