"""Whether every node of a cluster can do the work: each is asked for what stages need there, and by what it lacks a
run is refused before it starts."""

import hashlib
import importlib.util
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine.cluster.ray_session import LOCAL
from engine.config.texts import plural
from engine.errors import InputError, VaalError, one_line
from engine.storage.location import Location

PATIENCE_SECONDS = 60.0
"""A node that has not answered after so long is taken not to: a busy one may take long to start a process."""
STORE_SECONDS = 10.0
"""A storage that has not answered a node after so long is taken not to: without credentials a client may wait for
minutes for some."""
HEAD_BYTES = 1 << 16
"""So much of a file is compared, and its size."""
MOST_SHOWN = 200
"""Characters of an error that is not ours."""
PACKAGES = ("vaal", "engine")


class Need(NamedTuple):
    """What stages need on every node: the campaign, to read and to write; other files and folders to read; and modules
    of the user's to import."""

    campaign: str
    reads: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()

    @property
    def places(self) -> dict[str, str]:
        """The file or folder that is compared for each thing that is read."""
        return {self.campaign: f"{self.campaign}/campaign.toml", **{url: url for url in self.reads}}


class Answer(NamedTuple):
    """What a node says of itself: a mark of each place that it reads (see `mark_of`), why it cannot read the others,
    whether it can write, the modules that it lacks, the mark of its code, and the bytes free in Ray's folder."""

    marks: dict[str, str]
    faults: dict[str, str]
    can_write: bool
    lacks: tuple[str, ...]
    code: str
    free_bytes: int


class Node(NamedTuple):
    """A node of the cluster: its id and address, its CPUs, GPUs and bytes of memory, what it said, and what is wrong
    with it, a line each. `answer` is None where there was none."""

    id: str
    address: str
    cpus: float
    gpus: float
    memory_bytes: int
    answer: Answer | None
    faults: tuple[str, ...]


_reached: set[tuple[Need, str]] = set()
"""The nodes, by id, that can do what is needed."""


def require_reach(need: Need, address: str) -> None:
    """Raises InputError, within seconds, unless every node of the cluster can do what is needed. A node that
    could is not asked again. A private Ray is this machine, and not asked."""
    if address == LOCAL:
        return
    nodes = ask_nodes(need, without={node for asked, node in _reached if asked == need})
    bad = [node for node in nodes if node.faults]
    if bad:
        more = f"; {plural(len(bad) - 1, 'other node')} cannot work either" if len(bad) > 1 else ""
        raise InputError(f"--address {address}: {bad[0].faults[0]}{more}")
    _reached.update((need, node.id) for node in nodes)


def ask_nodes(need: Need, without: Iterable[str] = ()) -> list[Node]:
    """Every living node of the cluster that this process is connected to, but for those with these ids, in the order of
    their addresses."""
    left = {*without}
    alive = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in left]
    here = _answer(need)
    asked = {node["NodeID"]: _ask(node["NodeID"], need) for node in alive}
    done, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=PATIENCE_SECONDS) if asked else ([], [])
    # One that died a moment ago seemed to live, and does no work.
    still, nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}, list[Node]()
    for node in (node for node in alive if node["NodeID"] in still):
        name, address, resources = node["NodeID"], node["NodeManagerAddress"], node["Resources"]
        answer, *faults = _got(asked[name], address) if asked[name] in set(done) else (None, _silent(address))
        if answer:
            faults = [*_faults(address, here, answer, need)]
        cpus, gpus = (float(resources.get(name, 0)) for name in ("CPU", "GPU"))
        nodes.append(Node(name, address, cpus, gpus, int(resources.get("memory", 0)), answer, tuple(faults)))
    return sorted(nodes, key=lambda node: (node.address, node.id))


def mark_of(url: str) -> str:
    """What tells a file from another one under its name; of a folder, whether anything is in it. Raises InputError if
    it cannot be read."""
    place = Location(url)
    info = place.info()
    if info.is_file:
        return f"{info.size}-{hashlib.sha256(place.read_bytes(HEAD_BYTES)).hexdigest()}"
    if info.type == info.type.NotFound:
        raise InputError(f"{url}: no such file or folder")
    return "folder" if not place.is_local or any(Path(place.path).iterdir()) else "empty folder"


@cache
def code_mark() -> str:
    """A hash of the code of this process's packages, as it is on its disk."""
    digest = hashlib.sha256()
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        for root in sorted(spec.submodule_search_locations or ()) if spec else ():
            for file in sorted(Path(root).rglob("*.py")):
                digest.update(f"{name}/{file.relative_to(root)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _answer(need: Need) -> Answer:
    """What this process can read and import."""
    marks, faults = _marks(need.places)
    can_write = "://" in need.campaign or os.access(need.campaign, os.W_OK)
    lacks = tuple(name for name in need.modules if not _is_there(name))
    return Answer(marks, faults, can_write, lacks, code_mark(), _free_bytes())


def _marks(places: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The mark of each place, and why the others cannot be read, by name."""
    marks, faults = dict[str, str](), dict[str, str]()

    def read(name: str, place: str) -> None:
        try:
            marks[name] = mark_of(place)
        except (VaalError, OSError) as error:
            faults[name] = one_line(error).removeprefix(f"{place}: ")[:MOST_SHOWN]

    # Threads that are not waited for: a client that waits for credentials cannot be interrupted.
    threads = [Thread(target=read, args=item, daemon=True) for item in places.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + STORE_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    silent = places.keys() - marks.keys() - faults.keys()
    return {**marks}, {**faults, **dict.fromkeys(silent, f"no answer within {STORE_SECONDS:.0f} s")}


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except Exception:  # noqa: BLE001, a parent of the module is the user's code
        return False


def _free_bytes() -> int:
    with suppress(OSError):
        return shutil.disk_usage(os.environ.get("RAY_TMPDIR", "/tmp")).free
    return 0


def _ask(node: str, need: Need) -> Any:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    asked: Any = ray.remote(num_cpus=0, max_retries=0)(_answer)
    return asked.options(scheduling_strategy=there).remote(need)


def _got(asked: Any, address: str) -> tuple[Answer] | tuple[None, str] | tuple[None]:
    """A node's answer; or none, and what is wrong with it. Nothing is with one that has left the cluster."""
    try:
        return (ray.get(asked),)
    except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError, ray.exceptions.OwnerDiedError):
        return (None,)
    except Exception as error:  # noqa: BLE001, what a node without the code raises has no class
        why = next((line for line in str(error).splitlines()[::-1] if "Error" in line), one_line(error)).strip()
        fix = "install the same version there, or start the node from the same image"
        return None, f"node {address} cannot run vaal's code: {why[:MOST_SHOWN]}; {fix}"


def _silent(address: str) -> str:
    return f"node {address} did not answer within {PATIENCE_SECONDS:.0f} s; see to it, or take it out of the cluster"


def _faults(address: str, here: Answer, there: Answer, need: Need) -> Iterable[str]:
    """What a node lacks of what this machine has, a line each."""
    if there.code != here.code:
        yield f"node {address} has other code of vaal than this machine; install the same version on both"
    for url, mark in here.marks.items():
        shared = "use s3://, gs:// or a shared mount"
        if url in there.faults and "://" not in url:
            yield f"{url} is on this machine's disk, and node {address} does not have it; {shared}"
        elif url in there.faults:
            fix = "give it the same credentials: a role, or AWS_* variables or a profile where ray start runs"
            yield f"{url}: this machine can read it, and node {address} cannot: {there.faults[url]}; {fix}"
        elif there.marks[url] != mark:
            yield f"{url} is another one on node {address} than on this machine; {shared}"
    if here.can_write and not there.can_write:
        yield f"{need.campaign}: node {address} cannot write there, and this machine can; mount it for writing"
    for module in there.lacks:
        if module not in here.lacks:
            fix = "install it there, or submit with --working-dir FOLDER"
            yield f"node {address} does not have the module {module}; {fix}"
