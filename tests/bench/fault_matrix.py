"""What becomes of a pool's images under each fault: `vaal score`, and Ray Data's own reader and writer beside it.

    python tests/bench/fault_matrix.py [small]

Prints a table in Markdown. Both sides read the same shards and decode by Pillow; Ray Data's side then takes the mean of
the pixels (ray_data_scores.py). `expected` are the images of the undamaged pool, less those that cannot be decoded. A
row is an image in the output, `twice` are the rows that are there again, `named` the images in quarantine. A driver
that is killed is run again into the same output. `small` leaves out what takes minutes.
"""

import re
import shutil
import sys
import tarfile
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import boto3
import pyarrow.parquet as pq
from measure import is_small, machine

from engine.campaign.opening import open_campaign
from tests.conftest import pretend_trained
from tests.faults.campaigns import Pool, make_campaign, make_pool
from tests.faults.clusters import cluster
from tests.faults.driver import Driver, Ended, command, started
from tests.faults.proxy import Plan, faulty_proxy
from tests.servers import s3_server

COPIES = 4
VICTIM = "copy-00-03.tar"
SCRIPT = Path(__file__).with_name("ray_data_scores.py")
Disturb = Callable[[Driver, Callable[[], int]], None]
"""Harms a running driver; the function it is given counts the files that are in the output."""


@dataclass
class Case:
    """A fault: what is done to the pool before, to the driver meanwhile, or by the store."""

    name: str
    damage: Callable[[Path], None] = lambda _: None
    num_lost: int = 0
    disturb: Disturb | None = None
    plan: Plan | None = None
    is_rerun: bool = False
    loses_node: bool = False
    is_quick: bool = False
    ray_options: tuple[str, ...] = ()


class Where(NamedTuple):
    """The URL of a pool's folder, and the variables that lead there, past the faults of the store and through them."""

    pool: str
    calm: dict[str, str]
    faulty: dict[str, str]


@dataclass
class Outcome:
    """What a side made of it."""

    ended: Ended
    keys: Counter[str]
    num_named: int = 0


def cut(shard: Path, *, at_header: bool) -> None:
    """Cut an archive at its middle member: before its header, or in its content."""
    with tarfile.open(shard) as tar:
        members = tar.getmembers()
    member = members[len(members) // 2]
    size = member.offset if at_header else member.offset_data + member.size // 2
    shard.write_bytes(shard.read_bytes()[:size])


def damage_image(shard: Path) -> None:
    """Overwrite the image in the middle of an archive."""
    with tarfile.open(shard) as tar:
        members = tar.getmembers()
    member, content = members[len(members) // 2], bytearray(shard.read_bytes())
    content[member.offset_data : member.offset_data + member.size] = b"x" * member.size
    shard.write_bytes(content)


def after_first(count: Callable[[], int], driver: Driver) -> bool:
    """Wait for the first file in the output. Whether the driver still runs then."""
    while driver.is_running and count() == 0:
        time.sleep(0.02)
    return driver.is_running


def kill_driver(driver: Driver, count: Callable[[], int]) -> None:
    if after_first(count, driver):
        driver.kill()


def kill_worker(driver: Driver, count: Callable[[], int]) -> None:
    # Ray Data's tasks and actors are named by what they run; the others are its own.
    if after_first(count, driver):
        for worker in [worker for worker in driver.workers() if re.search("Map|Read|Write", command(worker))][:1]:
            worker.kill()


@contextmanager
def pool_of(case: Case, source: Path, folder: Path) -> Iterator[Where]:
    """The pool with the fault in it."""
    shutil.copytree(source, folder / "pool")
    case.damage(folder / "pool" / VICTIM)
    if case.plan is None:
        yield Where(str(folder / "pool"), {}, {})
        return
    # The server forgets nothing from one case to the next.
    bucket = uuid.uuid4().hex
    with s3_server(bucket) as direct, ExitStack() as stack:
        client = boto3.client("s3", endpoint_url=direct["AWS_ENDPOINT_URL"], region_name="us-east-1",
                              aws_access_key_id="key", aws_secret_access_key="secret")  # fmt: skip
        for shard in sorted((folder / "pool").glob("*.tar")):
            client.upload_file(str(shard), bucket, f"pool/{shard.name}")
        plan = replace(case.plan)  # with counters of its own
        url = stack.enter_context(faulty_proxy(direct["AWS_ENDPOINT_URL"], plan))
        yield Where(f"s3://{bucket}/pool", direct, {**direct, "AWS_ENDPOINT_URL": url})
        print(f"  {case.name}: {plan.requests} requests, {dict(plan.injected)}", file=sys.stderr)


def run(case: Case, words: list[str], variables: dict[str, str], count: Callable[[], int]) -> Ended:
    """The command under the fault, and again where a user would run it again."""
    with ExitStack() as stack:
        if case.loses_node:
            nodes = stack.enter_context(cluster([1, 1]))
            words = [*words, "--address", nodes.address]
        driver = stack.enter_context(started(words, variables))
        if case.disturb:
            case.disturb(driver, count)
        if case.loses_node and after_first(count, driver):
            nodes.remove_node(sorted(nodes.worker_nodes, key=str)[0], allow_graceful=False)
        ended = driver.wait()
    if case.is_rerun:
        with started(words, variables) as driver:
            ended = driver.wait()
    return ended


def rows_in(folder: Path) -> Counter[str]:
    return Counter(key for file in sorted(folder.glob("*.parquet")) for key in pq.read_table(file)["key"].to_pylist())


def vaal(case: Case, where: Where, made: Pool, folder: Path) -> Outcome:
    campaign = str(folder / "campaign")
    make_campaign(campaign, f"{where.pool}/*.tar", made.labels, **where.calm)
    pretend_trained(open_campaign(campaign, []))
    scores, quarantine = (Path(campaign, "rounds/000", name) for name in ("scores", "quarantine"))
    words = [sys.executable, "-m", "jobs", "score", campaign]
    ended = run(case, words, where.faulty, lambda: len(list(scores.glob("*.parquet"))))
    return Outcome(ended, rows_in(scores), rows_in(quarantine).total())


def ray_data(case: Case, where: Where, made: Pool, folder: Path) -> Outcome:
    output = folder / "output"
    words = [sys.executable, str(SCRIPT), where.pool, str(output), *case.ray_options]
    ended = run(case, words, where.faulty, lambda: len(list(output.glob("*.parquet"))))
    return Outcome(ended, rows_in(output))


def describe(outcome: Outcome, expected: int) -> str:
    keys, ended = outcome.keys, outcome.ended
    lines = [
        line for line in ended.plain_errors.splitlines() if re.match(r"error: |[\w.]*(Error|Exception)\b.*: ", line)
    ]
    # Without the folder, which differs from run to run.
    said = re.sub(r"\S*/(?=\S)", "", lines[-1])[:100].replace("|", "/") if ended.status and lines else ""
    is_right = len(keys) == expected and keys.total() == len(keys)
    verdict = "right" if is_right and ended.status == 0 else "**wrong, exit 0**" if ended.status == 0 else "reported"
    figures = f"{keys.total():,} rows, {keys.total() - len(keys)} twice, {outcome.num_named} named"
    return f"{verdict}; exit {ended.status}; {figures}{'; ' + said if said else ''}"


CASES = [
    Case("no fault", is_quick=True),
    Case("archive cut at a header", damage=partial(cut, at_header=True), is_quick=True),
    Case("archive cut inside a member", damage=partial(cut, at_header=False), is_quick=True),
    Case("one JPEG damaged", damage=damage_image, num_lost=1, is_quick=True),
    Case("the same, max_errored_blocks=-1", damage=damage_image, num_lost=1, ray_options=("--max-errored-blocks=-1",)),
    Case("driver killed, run again", disturb=kill_driver, is_rerun=True),
    Case("a worker killed", disturb=kill_worker),
    Case("one of two nodes lost", loses_node=True),
    Case("S3: one GET in twenty cut half-way", plan=Plan(("/*/pool/",), ("cut",), ("GET",), 0.05)),
    Case("S3: the same, each 30 times in a row", plan=Plan(("/*/pool/",), ("cut",), ("GET",), 0.05, in_a_row=30)),
    Case("S3: one request in ten answers 503", plan=Plan(("/*/pool/",), ("slow_down",), share=0.1)),
]


def main() -> None:
    cases = [case for case in CASES if case.is_quick or not is_small()]
    print(f"{machine()}\n\n| fault | expected | `vaal score` | `read_webdataset`, `map_batches`, `write_parquet` |")
    print("|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        made = make_pool(Path(name) / "source", COPIES, "JPEG", is_damaged=False)
        num_images = COPIES * 1797
        for number, case in enumerate(cases):
            cells = []
            for side in (vaal, ray_data):
                folder = Path(name) / f"{number}-{side.__name__}"
                folder.mkdir()
                with pool_of(case, made.folder, folder) as where:
                    cells.append(describe(side(case, where, made, folder), num_images - case.num_lost))
                shutil.rmtree(folder)
            print(f"| {case.name} | {num_images - case.num_lost:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
