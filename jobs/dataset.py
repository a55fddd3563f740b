"""`vaal dataset`: a data set of the field as shards, with the oracle's labels and a test set."""

from typing import Annotated

import typer

from engine.datasets import DATA_SETS
from jobs.terminal import Outcome, Terminal


def dataset(
    screen: Terminal,
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(DATA_SETS)}.")],
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="The folder of the unpacked files (docs/datasets.md has layouts).")
    ],
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Where shards go: a local path, s3://, gs:// or az://.")
    ],
    seed: Annotated[
        int, typer.Option(min=0, help="Of the order of the images, and of the split where there is no official one.")
    ] = 0,
) -> Outcome:
    """Convert a data set of the field into shards, labels and a test set for experiments. Nothing is downloaded."""
    from engine.campaign.stages import Run
    from engine.config.texts import plural
    from engine.datasets.converting import CLASSES_FILE, GROUPS_FILE, convert
    from engine.datasets.opened import TRAIN
    from engine.storage.location import Location

    home = Location.of(folder)
    with screen.progress("dataset") as update:
        found = convert(name, Location.of(source), home, seed, Run("local", update, screen.log))
    images = {part: plural(count, "image") for part, count in found.images.items()}
    if found.left_out:
        images[TRAIN] = f"{found.images[TRAIN]:,} of {plural(found.images[TRAIN] + found.left_out, 'image')}"
    facts = {
        part: f"{count} in {plural(found.shards[part], 'shard')}, labels in {part}-oracle.parquet"
        for part, count in images.items()
    }
    facts["classes"] = f"{found.num_classes:,}, in {CLASSES_FILE}"
    if (home / GROUPS_FILE).exists():
        facts["groups"] = f"of classes that are taken for one another, in {GROUPS_FILE}"
    if found.left_out:
        facts["left out"] = f"{plural(found.left_out, 'image')} of train whose file is in the test set or val too"
    if not found.changed:
        facts["compared"] = "names and sizes of images, not their contents or masks"
        facts["if SOURCE was corrected"] = "give another FOLDER, or delete this one and run again"
    title = f"Converted: {home}" if found.changed else f"Complete already: {home}"
    return Outcome(title, facts, {"name": name, "folder": home.url, "seed": seed, **found._asdict()})
