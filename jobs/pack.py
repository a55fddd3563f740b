"""`vaal pack`: images from anywhere into the shards of a pool."""

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import ConfigError
from jobs.terminal import AddressOption, Outcome, Terminal

if TYPE_CHECKING:
    from engine.packing.outcome import Contents
    from engine.packing.pack import Packed
    from engine.storage.location import Location

MOST_SHOWN = 5
"""Suffixes and classes that a person is shown."""


def pack(
    screen: Terminal,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A folder, a CSV or Parquet list of paths or URLs, Parquet with images, or videos."
        ),
    ],
    pool: Annotated[
        str, typer.Argument(metavar="POOL", help="The folder of the shards: a local path, s3://, gs:// or az://.")
    ],
    labels: Annotated[
        str, typer.Option(help="Where labels are written; the default is POOL/labels.csv.", metavar="FILE")
    ] = "",
    classes_from_folders: Annotated[
        bool, typer.Option("--classes-from-folders", help="The first folder below SOURCE names the class of an image.")
    ] = False,
    label_column: Annotated[
        str, typer.Option(metavar="NAME", help="The column with the labels of a list or of Parquet; default label.")
    ] = "",
    every: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Pack a frame every so many seconds of each video.")
    ] = 0.0,
    shard_images: Annotated[int, typer.Option(min=1, metavar="N", help="The most images of a shard.")] = 10_000,
    max_bad_fraction: Annotated[
        float, typer.Option(min=0, max=1, metavar="SHARE", help="Exit 3 if more images could not be packed.")
    ] = 0.05,
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="In which the image at a URL must arrive.")
    ] = 30.0,
    address: AddressOption = "local",
) -> Outcome:
    """Pack images into the shards of a pool: from a folder, a list, Parquet or videos. Run again to add what is new."""
    from engine.campaign.stages import Run
    from engine.packing.entries import Options
    from engine.packing.outcome import LABELS_FILE, require_acceptable, summarise
    from engine.packing.pack import pack as pack_all
    from engine.storage.location import Location

    origin, home = Location.of(source), Location.of(pool)
    file = Location.of(labels) if labels else home / LABELS_FILE
    if file == origin:
        raise ConfigError(f"{file}: is the source; give --labels another FILE")
    options = Options(classes_from_folders, label_column, every, shard_images, timeout)
    with screen.progress("pack") as update:
        packed = pack_all(origin, home, options, Run(address, update, screen.log))
        contents = summarise(home, file)
    for error, examples in contents.examples.items():
        screen.log(f"{contents.failures[error]:,} x {error}")
        for example in examples:
            screen.log(f"    {example}")
    require_acceptable(home, contents, max_bad_fraction)
    command = _next_command(home, file, contents, is_video=bool(every))
    data = {
        **packed._asdict(), "pool": home.url, "labels": file.url if contents.labels else None,
        "total": contents.images, "failed": dict(contents.failures), "classes": dict(contents.labels), "next": command,
    }  # fmt: skip
    title = f"Packed: {home}" if packed.shards else f"Nothing new in {origin}"
    return Outcome(title, {**_facts(home, packed, contents), "next": command}, data)


def _facts(home: "Location", packed: "Packed", contents: "Contents") -> dict[str, Any]:
    from engine.config.texts import plural, some
    from engine.packing.outcome import FAILURES_FILE

    facts: dict[str, Any] = {"images": packed.images, "shards": len(packed.shards)}
    if packed.images != contents.images:
        facts["in the pool"] = plural(contents.images, "image")
        if packed.shards:
            facts["for a campaign"] = "vaal pool CAMPAIGN refresh takes the new shards"
    if packed.seconds and packed.images:
        facts["speed"] = f"{packed.images / packed.seconds:,.0f} images a second"
    for name, files in (("with images", packed.companions), ("not packed", packed.skipped)):
        if files:
            facts[name] = some([f"{count:,} x {suffix}" for suffix, count in files.items()], MOST_SHOWN)
    if contents.failures:
        facts["failures"] = f"{contents.failures.total():,}, see {home / FAILURES_FILE}"
    if contents.labels:
        names = some(sorted(contents.labels), MOST_SHOWN)
        facts["labels"] = f"{contents.labels.total():,} of {plural(len(contents.labels), 'class')}: {names}"
        if contents.labels.total() >= contents.images:
            facts["nothing to pick"] = (
                "every image has a label: pack others too, or give vaal init a part of the labels"
            )
    return facts


def _next_command(home: "Location", labels: "Location", contents: "Contents", *, is_video: bool) -> str:
    """The command that makes a campaign of the pool, beside it; if there is one, the command that takes what is new."""
    from engine.config.input_options import ImageConfig
    from engine.config.texts import list_setting
    from engine.packing.videos import GROUP
    from engine.storage.location import Location

    campaign = Location(f"{home.url.rpartition('/')[0]}/campaign")
    if (campaign / "campaign.toml").exists():
        add = f" && vaal labels {campaign.quoted} add {labels.quoted}" if contents.labels else ""
        return f"vaal pool {campaign.quoted} refresh{add}"
    words = ["vaal", "init", campaign.url, "--pool", f"{home}/*.tar"]
    words += ["--labels", labels.url if contents.labels else "LABELS.csv"]
    if is_video:
        words += ["--set", f"pool.group={GROUP}"]
    command = shlex.join(words)
    usual: list[str] = ImageConfig().suffixes
    if others := sorted(contents.formats.keys() - {*usual}):
        command += f" {list_setting('image.suffixes', usual + others)}"
    return command
