"""What was handed out: a record for each batch in a round's handed_out/, kept apart from the stages.

A batch is out at its vendor exactly when its record has a manifest. Whatever becomes of the selection that it came
from, the record stays, so that no image is handed out twice.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.decisions import never_picked, released
from engine.campaign.folder import Campaign, is_complete, round_home
from engine.campaign.labels import read_labels
from engine.campaign.manifests import HandoffManifest, SelectionManifest, read_committed, read_complete
from engine.errors import InputError
from engine.storage.documents import read_document
from engine.storage.location import Location
from engine.tables.columns import required, rows_where
from engine.tables.item_keys import ItemIndex, ItemKeys, are_first, are_in, rows_of_items
from engine.tables.selections import SELECTION_SCHEMA, with_hash

RECORDS = "handed_out"
REFRESHED_FILE = "refreshed.json"
"""In the record of a batch whose links were signed again: the SHA-256 of its task files, and until when links work."""
IMAGES_FILE = "images.parquet"
SELECTION_FILE = "selection.parquet"
_PLACE = ("item_id", "shard", "key", "offset", "size_bytes", "content_hash")
_OF_PICKS = [*_PLACE, "gold"]
IMAGES_SCHEMA = pa.schema(
    [
        SELECTION_SCHEMA.field("rank"),
        *map(SELECTION_SCHEMA.field, _PLACE),
        *required(pa.string(), "file", "sha256"),
        SELECTION_SCHEMA.field("origin"),
        *required(pa.bool_(), "gold"),
        *required(pa.int64(), "sent_bytes", "width", "height"),
        pa.field("answered", pa.int64()),
    ]
)
"""A row an image of a batch, in the order of its tasks. `file` is its name in the handoff's folder; `sha256`,
`sent_bytes`, `width` and `height` (pixels, as it is shown) are of its content there; `rank` is its place in the
selection. A gold image has a label already. Its item_id is one of its own in each batch, and its rank is -1. `answered`
is how many answers had come before it was sent, null for none."""


PICKED_SCHEMA = pa.schema([*map(SELECTION_SCHEMA.field, _PLACE), ("round", pa.int32())])
"""Where a picked image was, and the round in which it was picked."""


class SentBatch(NamedTuple):
    """A batch that was handed out: the folder of its record, and its manifest."""

    folder: Location
    manifest: HandoffManifest

    @property
    def vendor(self) -> str:
        return self.manifest["sending"]["vendor"]

    @property
    def record(self) -> str:
        """The folder of the record below the campaign."""
        return record_of(self.folder)

    @property
    def links_expire_at(self) -> str | None:
        """Until when its links work, ISO 8601, as they are now; None where they do not end."""
        now = read_refreshed(self.folder)
        end: str | None = now["links_expire_at"] if now else self.manifest["sending"]["links_expire_at"]
        return end

    def rows(self, columns: list[str] | None = None) -> pa.Table:
        """All images that were sent: IMAGES_SCHEMA, or these columns of it, in the order of the tasks."""
        return read_committed(self.folder, IMAGES_FILE, columns)

    def images(self, columns: list[str] | None = None) -> pa.Table:
        """The images that were sent to be labelled, without the gold ones; columns, gold among them, as `rows`."""
        rows = self.rows(columns)
        return rows.filter(pc.invert(rows["gold"])) if pc.any(rows["gold"]).as_py() else rows


def read_refreshed(record: Location) -> dict[str, Any]:
    """What REFRESHED_FILE says; nothing where links were never signed again."""
    file = record / REFRESHED_FILE
    return read_document(file, dict[str, Any]) if file.exists() else {}


def record_of(folder: Location) -> str:
    """A folder's path below its campaign, from rounds/ on."""
    return f"rounds/{folder.url.rpartition('/rounds/')[2]}"


def vendor_of(record: Location) -> str:
    """The vendor in the name of a batch's record."""
    return record.name.rpartition("-")[0]


def batches(home: Location, number: int) -> list[SentBatch]:
    """The batches of a round that are out, oldest first.

    Raises InputError where the record of one is gone: each has the number after the newest one's of any vendor, and of
    the newest one `announce` left a file.
    """
    root = round_home(home, number) / RECORDS
    # First, because another run may send a batch meanwhile.
    announced = [name.removesuffix(".json") for name in root.children() if re.fullmatch(r".+-\d+\.json", name)]
    numbers = {name: int(parts[1]) for name in root.folders() if (parts := re.fullmatch(r".+-(\d+)", name))}
    found = [name for name in sorted(numbers, key=lambda name: numbers[name]) if is_complete(root / name)]
    gone = set(range(numbers[found[-1]] if found else 0)).difference(numbers[name] for name in found)
    lost = [name for name in announced if name not in found] or [f"*-{number:03d}" for number in sorted(gone)]
    if lost:
        why = "gone, and with it the record of a batch; its images could be sent twice"
        raise InputError(f"{root}/{lost[0]}/manifest.json: {why}; restore the folder from a copy")
    return [SentBatch(root / name, read_complete(root / name, "handoff", HandoffManifest)) for name in found]


def announce(record: Location) -> None:
    """Note beside a record that a run came to say that its batch is out. `batches` misses the record by it."""
    Location(f"{record.url}.json").write_json({"at": datetime.now(UTC).isoformat(timespec="seconds")})


def is_announced(record: Location) -> bool:
    """Whether a run came to say that this batch is out."""
    return Location(f"{record.url}.json").exists()


def newest_batches(home: Location, number: int) -> list[SentBatch]:
    """As `current_batches`; where the selection is gone, those of the newest selection that was handed out."""
    if is_complete(round_home(home, number) / "selection"):
        return current_batches(home, number)
    out = [batch for batch in batches(home, number) if batch.manifest["inputs"]["picks"]]
    return [batch for batch in out if batch.manifest["inputs"]["picks"] == out[-1].manifest["inputs"]["picks"]]


def all_batches(home: Location, before: int) -> list[SentBatch]:
    """The batches of the rounds before this one, oldest first."""
    return [batch for number in range(before) for batch in batches(home, number)]


def current_batches(home: Location, number: int) -> list[SentBatch]:
    """The batches of a round's selection as it is now, oldest first; none where there is no selection."""
    picks = _picks_of(home, number)
    return [batch for batch in batches(home, number) if batch.manifest["inputs"]["picks"] == picks]


def are_out(home: Location, before: int, item_ids: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which of these item_ids (N,) were sent in the rounds before, and not taken back to be picked again."""
    free, index = released(home), ItemIndex(keys := ItemKeys.of_texts(item_ids))
    is_out = np.zeros(len(item_ids), bool)
    # What was sent is much more, and is read batch by batch.
    for batch in all_batches(home, before):
        rows = index.rows_of(ItemKeys.of_texts(_without(batch, free, ["item_id", "gold"])["item_id"]))
        is_out[rows[rows >= 0]] = True
    found: NDArray[np.bool_] = is_out[index.rows_of(keys)]
    return found


def waiting_picks(home: Location, number: int) -> pa.Table:
    """The picks of a round's selection that may be sent now, most valuable first: SELECTION_SCHEMA.

    What is out, labelled, or never to be picked is not among them. What was taken back and may be picked again is.
    """
    picks = with_hash(read_committed(round_home(home, number) / "selection", SELECTION_FILE))
    is_gone = are_in(picks, read_labels(home, ["shard", "key", "label", "round"])) | are_in(
        picks, rows_of_items(sorted(never_picked(home)))
    )
    is_free = ~are_out(home, number + 1, picks["item_id"])
    return picks.filter(pa.array(is_free & ~is_gone)).sort_by("rank")


def picks_hash(picks: pa.Table) -> str:
    """SHA-256 of the item_ids of a selection, in any order."""
    return hashlib.sha256("\n".join(sorted(picks["item_id"].to_pylist())).encode()).hexdigest()


def _picks_of(home: Location, number: int) -> str | None:
    """`picks_hash` of a round's selection; None where there is none."""
    folder = round_home(home, number) / "selection"
    if not is_complete(folder):
        return None
    manifest = read_complete(folder, "selection", SelectionManifest)
    return manifest.get("picks") or picks_hash(read_committed(folder, SELECTION_FILE))


def completed(campaign: Campaign, name: str) -> list[Location]:
    """The complete folders of a stage of the round: at most one; of the handoff a record for each current batch."""
    if name == "handoff":
        return [batch.folder for batch in current_batches(campaign.home, campaign.round)]
    return [folder for folder in [campaign.stage(name)] if is_complete(folder)]


def left_out(home: Location, number: int) -> pa.Table:
    """The picks of a round's selection that none of its batches holds: SELECTION_SCHEMA. None before it is handed out,
    because then all of them may be."""
    out, folder = current_batches(home, number), round_home(home, number) / "selection"
    if not out:
        return SELECTION_SCHEMA.empty_table()
    picks = with_hash(read_committed(folder, SELECTION_FILE))
    sent = pa.concat_arrays([chunk for batch in out for chunk in batch.images()["item_id"].chunks])
    return picks.filter(pc.invert(pc.is_in(picks["item_id"], value_set=sent)))


class PickedFile(NamedTuple):
    """A file of what a round picked: what a batch holds, or a selection that was not handed out. That has no batch, and
    may be made again by another run: `sha256` is that of the file as it was found."""

    round: int
    folder: Location
    batch: SentBatch | None
    sha256: str = ""

    def rows(self, columns: list[str]) -> pa.Table:
        """These columns of SELECTION_SCHEMA, of a batch those of IMAGES_SCHEMA, as they are in the file.

        Raises InputError if it is damaged, or not the file that was found.
        """
        if self.batch:
            return self.batch.rows(columns)
        try:
            return read_committed(self.folder, SELECTION_FILE, columns, self.sha256)
        except pa.ArrowInvalid:
            # An older campaign did not keep the hashes.
            kept = [name for name in columns if name != "content_hash"]
            return with_hash(read_committed(self.folder, SELECTION_FILE, kept, self.sha256)).select(columns)


def picked_files(home: Location, before: int) -> Iterator[PickedFile]:
    """The files of everything picked in the rounds before, oldest round first.

    Of a selection that was handed out, this is what its batches hold: a pick that was left out of them, because its
    shard had changed, may be picked again. This includes what was handed out in round `before` itself and does not
    belong to its selection, which was made again since. Where the selection is gone, its batches are taken to be the
    newest.
    """
    for number in range(before + 1):
        out, folder = batches(home, number), round_home(home, number) / "selection"
        if number == before and out:
            # Of a disputed batch, which is of no selection, more people are asked about images that were out before.
            out = [batch for batch in out if batch.manifest["inputs"]["picks"]]
            own = _picks_of(home, number) or (out[-1].manifest["inputs"]["picks"] if out else "")
            out = [batch for batch in out if batch.manifest["inputs"]["picks"] != own]
        # First what a vendor saw: an older selection does not have the hashes.
        yield from (PickedFile(number, batch.folder, batch) for batch in out)
        if number < before and is_complete(folder) and not current_batches(home, number):
            files = read_complete(folder, "selection", SelectionManifest)["files"]
            yield PickedFile(number, folder, None, files.get(SELECTION_FILE, ""))


def picked_tables(
    home: Location, before: int, *, with_released: bool = False, columns: Sequence[str] = PICKED_SCHEMA.names
) -> Iterator[pa.Table]:
    """As `picked_items`, file by file; an item that was sent again is there again."""
    free, schema = set() if with_released else released(home), _picked_schema(columns)
    read = [name for name in columns if name != "round"]
    for file in picked_files(home, before):
        # Not held while the next one is read.
        yield _of_round(
            _without(file.batch, free, [*read, "gold"]) if file.batch else file.rows(read), file.round
        ).select(schema.names)


def _of_round(table: pa.Table, number: int) -> pa.Table:
    return table.append_column(PICKED_SCHEMA.field("round"), pa.array(np.full(len(table), number, np.int32)))


def picked_items(
    home: Location, before: int, *, with_released: bool = False, columns: Sequence[str] = PICKED_SCHEMA.names
) -> pa.Table:
    """Everything picked in the rounds before, PICKED_SCHEMA; each item once. See `picked_files`.

    Args:
        with_released: also what was taken back from its vendor and may be picked again.
        columns: those of PICKED_SCHEMA that are wanted, item_id among them.
    """
    tables = picked_tables(home, before, with_released=with_released, columns=columns)
    table = pa.concat_tables([_picked_schema(columns).empty_table(), *tables])
    return rows_where(table, are_first(ItemKeys.of_texts(table["item_id"])))


def _picked_schema(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([PICKED_SCHEMA.field(name) for name in columns])


def _without(batch: SentBatch, free: set[tuple[str, str]], columns: list[str] = _OF_PICKS) -> pa.Table:
    """The images of a batch that were not released; the columns have item_id and gold."""
    images, record = batch.images(columns), batch.record
    gone = [item_id for name, item_id in free if name == record]
    if not gone:
        return images
    return images.filter(pc.invert(pc.is_in(images["item_id"], value_set=pa.array(gone, pa.string()))))
