"""A command as a Ray job: its shell line, its id, and the local files that it takes along."""

import hashlib
import re
import shlex
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from engine.errors import ConfigError, InputError
from engine.storage.location import Location, masked

MOST_BYTES = 100 << 20
"""Of the files of a job. Larger ones belong on an object store."""


class JobCommand(NamedTuple):
    """The shell line, the campaign ("" without one), the name and the id of a job without the number of its attempt,
    and the local files that it needs, by the names under which it finds them."""

    line: str
    name: str
    campaign: str
    key: str
    files: dict[str, Path]


def job_command(
    words: list[str], commands: Collection[str], with_ray: Collection[str], working_dir: str = ""
) -> JobCommand:
    """The job of a command: a local campaign's path is made absolute, commands that need Ray connect to the cluster
    that the job is on, and local files are named as they will be found there.

    Raises:
        ConfigError: no such command, or it has a Ray address of its own, or a URL with a password or signature.
        InputError: a local file is too large, or a folder.
    """
    name, *rest = words
    if name not in commands:
        raise ConfigError(f"{name}: no such command; a job runs one of {', '.join(sorted(commands))}")
    if any(word == "--address" or word.startswith("--address=") for word in rest):
        raise ConfigError("--address: give it once, before the command; a job runs on the cluster it is submitted to")
    for word in rest:
        if "://" in word and masked(word) != word:
            raise ConfigError(
                f"{masked(word)}: has a password or options, and a cluster shows the commands of its jobs; set AWS_* "
                "variables of the cluster instead"
            )
    files, found, campaign = dict[str, Path](), list[str](), ""
    for place, word in enumerate(rest):
        if place == 0 and name not in ("simulate", "pack") and not word.startswith("-"):
            campaign = Location.of(word).url
            found.append(campaign)
        else:
            found.append(_as_sent(word, files, working_dir))
    if (size := sum(file.stat().st_size for file in files.values())) > MOST_BYTES:
        listed = ", ".join(map(str, files.values()))
        raise InputError(f"{listed}: {size / 1e6:.0f} MB, too much to send with a job; put it on an object store")
    all_words = ["python", "-m", "jobs", name, *found, *(["--address", "auto"] if name in with_ray else [])]
    return JobCommand(shlex.join(all_words), name, campaign, _key_of(name, campaign, words), files)


def copied(files: dict[str, Path], folder: Path, working_dir: str) -> str:
    """The folder that a job starts in, "" if it needs none: the one that is given, or one with its files alone."""
    if working_dir:
        return working_dir
    for name, file in files.items():
        shutil.copyfile(file, folder / name)
    return str(folder) if files else ""


def _as_sent(word: str, files: dict[str, Path], working_dir: str) -> str:
    """A word of the command, with a local file in it named as the job finds it."""
    before, equals, value = word.rpartition("=")
    path = Path(value or ".")
    if "://" in value or value.startswith("-") or not path.is_file():
        return word
    if working_dir:
        root = Path(working_dir).resolve()
        if not path.resolve().is_relative_to(root):
            raise InputError(f"{value}: not in --working-dir {working_dir}, all that the job finds; copy it there")
        return f"{before}{equals}{path.resolve().relative_to(root)}"
    sent = path.name if path.name not in files else f"{len(files)}-{path.name}"
    files[sent] = path
    return f"{before}{equals}{sent}"


def _key_of(name: str, campaign: str, words: list[str]) -> str:
    """What is the same for the same command on the same campaign, and can be read."""
    place = re.sub(r"[^a-zA-Z0-9]+", "-", campaign.rstrip("/").rpartition("/")[2]).strip("-").lower()
    digest = hashlib.sha256(shlex.join([campaign, *words]).encode()).hexdigest()[:8]
    return "-".join(part for part in ("vaal", place, name, digest) if part)
