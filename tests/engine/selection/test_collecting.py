"""What the first pass collects is the same however the scores are divided into row groups, files and parts."""

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from engine.selection.collecting import Collected, Collector, Fates, Wish, merged, weighed_by_labels
from vaal.completion import NEAREST, mean_weights

WISH = Wish(0, num_clusters=7, num_keyed=25, num_turned=30, num_labelled=50, budget=50, seed=9)
NUM_FILES, NUM_ROWS = 6, 60


def rows_of(seed: int) -> list[tuple[str, pa.Table, Fates]]:
    """Scores files with many ties."""
    rng, files = np.random.default_rng(seed), list[tuple[str, pa.Table, Fates]]()
    for number in range(NUM_FILES):
        is_labelled = rng.random(NUM_ROWS) < 0.2
        is_taken, is_kept_out = is_labelled | (rng.random(NUM_ROWS) < 0.1), rng.random(NUM_ROWS) < 0.2
        is_kept_out &= ~is_taken
        is_excluded = is_kept_out & (rng.random(NUM_ROWS) < 0.5)
        is_uncertain = is_labelled & (rng.random(NUM_ROWS) < 0.4)
        fates = Fates(is_taken, is_labelled, is_uncertain, is_excluded, is_kept_out & ~is_excluded)
        table = pa.table(
            {
                "logit": rng.normal(size=NUM_ROWS).astype(np.float32),
                "offset": np.arange(NUM_ROWS) * 512,
                "margin": (rng.integers(20, size=NUM_ROWS) / 20).astype(np.float32),
                "predicted": (rng.integers(5, size=NUM_ROWS) ** 2 // 4).astype(np.int32),
                "cluster": rng.integers(6, size=NUM_ROWS).astype(np.int32),
                "distance": rng.integers(9, size=NUM_ROWS).astype(np.int32),
            }
        )
        files.append((f"{number}.tar", table, fates))
    return files


def collect(files: list[tuple[str, pa.Table, Fates]], wish: Wish, group_rows: int, cuts: list[int]) -> Collected:
    """In parts of files that end at the cuts, each read in groups of rows."""
    whole, begin = Collector(wish), 0
    for end in [*cuts, len(files)]:
        part = Collector(wish)
        for number, (shard, table, fates) in enumerate(files[begin:end]):
            found, num_free = [], 0
            for row in range(0, NUM_ROWS, group_rows):
                here = Fates(*(values[row : row + group_rows] for values in fates))
                found.append(part.look(shard, table.slice(row, group_rows), here, num_free))
                num_free += int(here.is_free.sum())
            part.add(merged(found, wish), number)
        whole.add(part.result(), begin)
        begin = end
    return whole.result()


def values(found: Collected) -> list[list[float]]:
    columns = [
        *found.coverage,
        found.labelled_C,
        found.sum_C,
        found.count_C,
        *found.nearest,
        *found.keyed,
        *found.turned,
    ]
    return [column.tolist() for column in columns]


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(6))
def test_parts_and_row_groups_do_not_matter(seed: int) -> None:
    files = rows_of(seed)
    expected = values(collect(files, WISH, NUM_ROWS, []))
    for group_rows, cuts in ((1, []), (7, [1, 2, 5]), (60, [3]), (13, [0, 4])):
        assert values(collect(files, WISH, group_rows, cuts)) == expected


def test_it_is_what_a_sort_of_everything_gives() -> None:
    files = rows_of(0)
    found = collect(files, WISH, 11, [2])
    free = [table.filter(pa.array(fates.is_free)) for _, table, fates in files]
    place: NDArray[np.int64] = np.concatenate([np.arange(len(table)) for table in free])
    file = np.repeat(np.arange(NUM_FILES), [len(table) for table in free])
    cluster, distance = (np.concatenate([table[name].to_numpy() for table in free]) for name in ("cluster", "distance"))
    order = np.lexsort((place, file, distance, cluster))
    expected = [n for i, n in enumerate(order) if (cluster[order[:i]] == cluster[n]).sum() < NEAREST]
    assert found.nearest.at_K.tolist() == place[expected].tolist()
    assert found.nearest.file_K.tolist() == file[expected].tolist()
    assert found.count_C.tolist() == np.bincount(cluster, minlength=7).tolist()
    everything = np.concatenate([table["cluster"].to_numpy() for _, table, _ in files])
    taken, labelled, uncertain = (np.concatenate([fates[n] for *_, fates in files]) for n in range(3))
    for counts, chosen in (
        (found.coverage.unlabelled_C, np.concatenate([fates.is_free for *_, fates in files])),
        (found.coverage.drawn_C, labelled & ~uncertain),
        (found.coverage.filled_C, uncertain | (taken & ~labelled)),
        (found.labelled_C, labelled),
    ):
        assert counts.tolist() == np.bincount(everything[chosen], minlength=7).tolist()


def test_nothing_is_read_that_is_not_wished_for() -> None:
    assert Wish(5).columns == []
    assert Wish(5, num_keyed=1).columns == ["logit", "offset"]
    assert Wish(0, 3, has_logits=False).columns == ["cluster", "distance"]
    assert Wish(0, 3, 1, 1).columns == ["logit", "cluster", "distance", "offset", "margin", "predicted"]


def test_without_logits_labels_say_what_a_cluster_lacks() -> None:
    wish = Wish(0, num_clusters=7, num_labelled=50, budget=50, has_logits=False)
    found = weighed_by_labels(collect(rows_of(0), wish, 11, [2]), wish)
    # The seventh cluster is empty.
    free_C, labelled_C = found.count_C[:6], found.labelled_C[:6]
    density_C = labelled_C / labelled_C.sum() * free_C.sum() / free_C
    mean_C = mean_weights(found.sum_C, found.count_C)
    np.testing.assert_allclose(mean_C, [*np.maximum(0, 1 - density_C / 2), 0], atol=1e-6)
    assert (mean_C[:6] > 0).all()
    none = found._replace(labelled_C=0 * found.labelled_C)
    empty = weighed_by_labels(none, wish._replace(num_labelled=0))
    assert mean_weights(empty.sum_C, empty.count_C).tolist() == [1.0] * 6 + [0.0]
