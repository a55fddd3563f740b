"""Committed scores to the b lowest: seconds and peak memory, beside DuckDB, Polars and Ray Data over the same files.

    python tests/bench/reduction.py [small]

100,000,000 scores in 1,000 Parquet files as scoring writes them (small: 2,000,000 in 20), with random hashes and 32
random latents an item: some 14 GB below TMPDIR, deleted at the end. The files are in the operating system's memory as
far as that goes. Each measurement is a fresh process; its clock starts when its libraries are loaded and its
connection, or its Ray, is up, and its memory is the highest of all its processes together.

- ours: `count` and `gather` of shard, key and logit as a selection calls them, with Ray tasks; every page that is read
  is compared with its checksum, and every footer with the manifest's SHA-256
- ours, unchecked: the same without that, as the others do it, by one process of the same code
- duckdb: ORDER BY logit, shard, key LIMIT b; polars: bottom_k with the streaming engine; scan: pyarrow reads the logit
  column alone, which is the limit; ray data: sort().limit() on 1 % of the rows

Aims: no slower than the faster of DuckDB and Polars at b = 1,000, at most half its time at b = 1 % of the rows, and
under 2 GiB. Then the growth from 1 to 100 million rows.
"""

import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from measure import end_on_sigterm, is_small, machine, result_of, start_fresh

ROWS_PER_FILE = 100_000
NUM_LATENTS = 32
ROUNDS = 3
PEERS = ("duckdb", "polars", "scan")


def make_file(folder: str, number: int) -> dict[str, Any]:
    """A scores file of random items, written as scoring writes. Returns its entry in the manifest."""
    import hashlib
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    from engine.scoring.drafts import ROW_GROUP_ITEMS, WRITER_OPTIONS
    from engine.tables.score_reader import footer_sha256
    from engine.tables.scores import scores_schema

    rng = np.random.default_rng(number)
    shard, rows = f"pool/shard-{number:06d}.tar", ROWS_PER_FILE
    schema = scores_schema(NUM_LATENTS)
    random_bytes = rng.bytes(16 * rows).hex()
    latent = rng.standard_normal(rows * NUM_LATENTS, np.float32).astype(np.float16)
    sizes = rng.integers(50_000, 150_000, rows)
    hashes = pa.py_buffer(rng.bytes(rows * schema.field("perceptual_hash").type.byte_width))
    columns = {
        "shard": [shard] * rows,
        "key": [f"{n:09d}" for n in range(number * rows, (number + 1) * rows)],
        "offset": np.cumsum(sizes),
        "size_bytes": sizes,
        "content_hash": [random_bytes[32 * n : 32 * n + 32] for n in range(rows)],
        "perceptual_hash": pa.Array.from_buffers(schema.field("perceptual_hash").type, rows, [None, hashes]),
        "logit": rng.normal(0, 3, rows).astype(np.float32),
        "latent": pa.FixedSizeListArray.from_arrays(pa.array(latent), NUM_LATENTS),
    }
    file = Path(folder) / f"{number:06d}.parquet"
    table = pa.table([columns[name] for name in schema.names], schema=schema)
    statistics_of = ["key", "logit"]
    pq.write_table(table, file, row_group_size=ROW_GROUP_ITEMS, write_statistics=statistics_of, **WRITER_OPTIONS)
    content = file.read_bytes()
    return {
        "shard": shard, "file": file.name, "scored": rows, "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content), "footer_sha256": footer_sha256(io.BytesIO(content), len(content)),
    }  # fmt: skip


def make_main(folder: str, begin: int, end: int) -> None:
    print(json.dumps({"entries": [make_file(folder, number) for number in range(begin, end)]}))


class Peak:
    """The highest memory of this process and its children together while the body runs."""

    def __enter__(self) -> "Peak":
        self.bytes, self._is_over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        import psutil

        me = psutil.Process()
        # More often it takes a fifth of a core from what is measured.
        while not self._is_over.wait(0.25):
            total = 0
            for process in (me, *me.children(recursive=True)):
                with suppress(psutil.Error):
                    # What is shared, such as Ray's object store, counts once.
                    info = process.memory_full_info() if process is me else process.memory_info()
                    total += info.rss if process is me else info.rss - info.shared
            self.bytes = max(self.bytes, total)

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


def measured(work: Callable[[], int]) -> None:
    with Peak() as peak:
        begin = time.perf_counter()
        rows = work()
        seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "peak": peak.bytes, "rows": rows}))


def ours(folder: str, num_files: int, b: int, *, is_checked: bool) -> None:
    import pyarrow as pa

    from engine.selection import parts, reduction
    from engine.selection.collecting import Wish
    from engine.selection.order import Ranking
    from engine.selection.sources import Source, Sources
    from engine.storage.location import Location
    from engine.tables import score_reader
    from engine.tables.scores import ShardRecord, scores_schema

    entries = json.loads((Path(folder) / "manifest.json").read_text())[:num_files]
    none = pa.array([], pa.string())
    records = (ShardRecord(listed=entry["scored"], quarantined=0, **entry) for entry in entries)
    sources = Sources.of(Source(record, none, none) for record in records)
    scores = scores_schema(NUM_LATENTS, ["score"])
    schema = pa.schema([scores.field(name) for name in ("shard", "key", "score")])
    location = Location.of(folder)
    if not is_checked:
        parts.PART_ROWS = 10**12
        opened = score_reader.open_scores
        reduction.open_scores = lambda where, record, **_: opened(where, record, is_checked=False)

    def work() -> int:
        counted = reduction.count(location, sources, Wish(b), lambda _: None)
        wanted = reduction.RowQuery(counted.bound(b), b, schema, ranking=Ranking())
        return len(reduction.gather(location, sources, counted, wanted, lambda _: None).lowest)

    with parts.room_for(reduction.parts_of(sources), "local"):
        measured(work)


def duckdb(files: list[str], b: int) -> None:
    import duckdb as database

    connection = database.connect()
    connection.execute(f"SET threads={os.cpu_count()}")
    query = f"SELECT logit, shard, key FROM read_parquet({files!r}) ORDER BY logit, shard, key LIMIT {b}"
    measured(lambda: connection.sql(query).to_arrow_table().num_rows)


def polars(files: list[str], b: int) -> None:
    import polars as pl

    lowest = pl.scan_parquet(files).select("logit", "shard", "key").bottom_k(b, by=["logit", "shard", "key"])
    measured(lambda: lowest.collect(engine="streaming").height)


def scan(files: list[str], b: int) -> None:
    import pyarrow.dataset as ds

    dataset = ds.dataset(files, format="parquet")
    measured(lambda: min(b, sum(batch.num_rows for batch in dataset.to_batches(columns=["logit"]))))


def ray_data(files: list[str], b: int) -> None:
    import ray

    from engine.cluster.ray_session import ray_session

    with ray_session("local"):
        ray.data.DataContext.get_current().enable_progress_bars = False
        data = ray.data.read_parquet(files).select_columns(["logit", "shard", "key"])
        measured(lambda: len(data.sort(["logit", "shard", "key"]).limit(b).take_all()))


def child_main(kind: str, folder: str, num_files: int, b: int) -> None:
    files = [f"{folder}/{number:06d}.parquet" for number in range(num_files)]
    if kind in ("ours", "unchecked"):
        ours(folder, num_files, b, is_checked=kind == "ours")
    else:
        {"duckdb": duckdb, "polars": polars, "scan": scan, "ray data": ray_data}[kind](files, b)


def measure(kind: str, folder: str, num_files: int, b: int) -> dict[str, Any]:
    found = result_of(start_fresh(__file__, "child", kind, folder, str(num_files), str(b)))
    assert found["rows"] == b
    return found


def table(folder: str, num_files: int, b: int, rounds: int) -> None:
    kinds = ("ours", "unchecked", *PEERS)
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            found[kind].append(measure(kind, folder, num_files, b))
    seconds = {kind: statistics.median(one["seconds"] for one in found[kind]) for kind in kinds}
    fastest = min(seconds["duckdb"], seconds["polars"])
    print(f"\n{num_files * ROWS_PER_FILE:,} scores, b = {b:,}, median of {rounds}")
    for kind in kinds:
        peak = max(one["peak"] for one in found[kind]) / 2**20
        print(f"  {kind:<10} {seconds[kind]:8.2f} s {seconds[kind] / fastest:6.2f} of the faster peer {peak:8,.0f} MiB")


def growth(folder: str, num_files: int) -> None:
    points = []
    print("\ngrowth, checked and unchecked, b = 1,000")
    for part in (100, 10, 1):
        count = max(1, num_files // part)
        seconds = [measure(kind, folder, count, 1000)["seconds"] for kind in ("ours", "unchecked")]
        points.append((count * ROWS_PER_FILE, *seconds))
        print(f"  {count * ROWS_PER_FILE:>13,} rows {seconds[0]:8.2f} s {seconds[1]:8.2f} s")
    rows, checked, unchecked = (np.array(column, float) for column in zip(*points, strict=True))
    for name, seconds in (("checked", checked), ("unchecked", unchecked)):
        slope, start = np.polyfit(rows, seconds, 1)
        print(f"  {name}: {start:.2f} s + {slope * 1e6:.3f} s a million rows: 1 billion {start + slope * 1e9:,.0f} s")


def main() -> None:
    end_on_sigterm()
    num_files, rounds = (20, 1) if is_small() else (1000, ROUNDS)
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        begin, half = time.perf_counter(), num_files // 2
        makers = [start_fresh(__file__, "make", folder, *map(str, part)) for part in ((0, half), (half, num_files))]
        entries = [entry for maker in makers for entry in result_of(maker)["entries"]]
        (Path(folder) / "manifest.json").write_text(json.dumps(entries))
        size = sum(entry["size_bytes"] for entry in entries)
        print(f"{size / 1e9:.1f} GB made in {time.perf_counter() - begin:.0f} s", flush=True)
        measure("scan", folder, num_files, 1)
        for b in (1000, num_files * ROWS_PER_FILE // 100):
            table(folder, num_files, b, rounds)
        some = max(1, num_files // 100)
        seconds = {kind: measure(kind, folder, some, 1000)["seconds"] for kind in ("ray data", "unchecked")}
        print(f"\n{some * ROWS_PER_FILE:,} scores, b = 1,000: Ray Data's sort().limit() {seconds['ray data']:.1f} s, "
              f"{seconds['ray data'] / seconds['unchecked']:.0f} times ours")  # fmt: skip
        growth(folder, num_files)


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make_main(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1:2] == ["child"]:
        child_main(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
