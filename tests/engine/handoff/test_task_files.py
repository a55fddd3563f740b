"""Files within a vendor's limits hold every line once, in order."""

import csv
import io
import itertools

from hypothesis import given
from hypothesis import strategies as st

from engine.handoff.formats.task_files import csv_lines, in_files, rows_in_files
from engine.tables.harmless import restored

LINES = st.lists(st.binary(min_size=1, max_size=5).map(lambda line: line.replace(b"\n", b"") + b"\n"), max_size=12)


@given(LINES, st.integers(1, 20), st.integers(1, 4), st.sampled_from([b"", b"header\n"]))
def test_no_file_is_larger_than_the_limits(lines: list[bytes], most_bytes: int, most_lines: int, header: bytes) -> None:
    files = dict(in_files("t.tsv", lines, most_bytes=most_bytes, most_lines=most_lines, header=header))
    assert list(files) == (["t.tsv"] if len(files) == 1 else [f"t-{n:03d}.tsv" for n in range(1, len(files) + 1)])
    parts = [content.removeprefix(header) for content in files.values()]
    assert b"".join(parts) == b"".join(lines)
    assert all(content.startswith(header) for content in files.values())
    for content, part in zip(files.values(), parts, strict=True):
        num = part.count(b"\n")
        assert num <= most_lines
        assert len(content) <= most_bytes or num <= 1
    # No file is there that its neighbours had room for.
    for part, after in itertools.pairwise(parts):
        first = after.partition(b"\n")[0] + b"\n"
        assert part.count(b"\n") == most_lines or len(header + part + first) > most_bytes


def test_a_file_is_written_before_the_next_one_is_made() -> None:
    endless = in_files("t.tsv", itertools.repeat(b"line\n"), most_bytes=1000, most_lines=2, header=b"h\n")
    assert list(itertools.islice(endless, 2)) == [("t-001.tsv", b"h\nline\nline\n"), ("t-002.tsv", b"h\nline\nline\n")]


@given(st.lists(st.integers(), max_size=12), st.integers(1, 13))
def test_rows_are_split_as_lines_are(rows: list[int], most: int) -> None:
    files = list(rows_in_files("t.jsonl", rows, most))
    lines = in_files("t.jsonl", [b"%d\n" % row for row in rows], most_bytes=10**9, most_lines=most)
    assert [(name, b"".join(b"%d\n" % row for row in part)) for name, part in files] == list(lines)


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")), min_size=2, max_size=3))
def test_a_line_reads_back_and_runs_nowhere(cells: list[str]) -> None:
    for mark in (",", "\t"):
        (line,) = csv_lines([cells], mark)
        (read,) = csv.reader(io.StringIO(line.decode(), newline=""), delimiter=mark, strict=True)
        assert [restored(cell) for cell in read] == cells
        assert not [cell for cell in read if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
