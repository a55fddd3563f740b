"""The answers of annotators, kept for ever: what counts as a label is derived from them (`engine.campaign.settling`).

A file of votes is what one ingest brought. Files are only ever added. An ingest is undone by a label file that names it
(`engine.campaign.labels.UNDOES_VOTES`); its file stays.
"""

import hashlib
import hmac
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.folder import next_number
from engine.config.class_names import text_form
from engine.storage.location import Location
from engine.tables.columns import required

FOLDER = "votes"
VOTES_SCHEMA = pa.schema(
    [
        *required(pa.string(), "item_id", "vendor"),
        pa.field("vendor_answer_id", pa.string()),
        pa.field("annotator", pa.string()),
        pa.field("value", pa.string()),
        *required(pa.bool_(), "skipped"),
        pa.field("seconds", pa.float64()),
        pa.field("answered_at", pa.timestamp("us", tz="UTC")),
        *required(pa.string(), "ingest"),
        pa.field("reason", pa.string()),
        pa.field("raw", pa.string()),
    ]
)
"""`annotator` is a keyed hash; null: the vendor's final answer, of all annotators together. `value` is a class, or JSON
of several classes or of shapes; null where the image was skipped, maybe with a `reason`. `ingest` is the name of the
file of votes without its suffix. `raw` is the vendor's own JSON of shapes."""
DIGEST_BYTES = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NO_TIME = np.iinfo(np.int64).min


def annotator_hash(salt: str, vendor: str, name: str) -> str:
    """A pseudonym of an annotator, 32 hex digits: it cannot be traced back without the campaign's salt."""
    key = bytes.fromhex(salt)
    return hmac.new(key, f"{vendor}\0{name}".encode(), hashlib.sha256).hexdigest()[: 2 * DIGEST_BYTES]


def digest_of(*parts: str | None) -> bytes:
    """A hash of texts, DIGEST_BYTES long; None is no text."""
    joined = "".join("\0" if part is None else f"\1{len(part)}:{part}" for part in parts)
    return hashlib.blake2b(joined.encode(), digest_size=DIGEST_BYTES).digest()


def identity_of_vote(item_id: str, vendor: str, answer_id: str | None, annotator: str | None) -> bytes:
    """What stays the same in all versions of an answer: its image, and the vendor's own name of it or else whose it is.

    Two servers, or two projects, may give the same name to answers for two images.
    """
    return digest_of(vendor, item_id, answer_id, None if answer_id else annotator)


def files_of_votes(home: Location) -> list[str]:
    """The names of the files of votes, oldest first."""
    return list((home / FOLDER).children())


def read_votes(home: Location, undone: Iterable[str] = ()) -> pa.Table:
    """All versions of all answers, oldest ingest first, without those of undone ingests: VOTES_SCHEMA."""
    names = [name for name in files_of_votes(home) if name.removesuffix(".parquet") not in set(undone)]
    tables = [(home / FOLDER / name).read_typed_table(VOTES_SCHEMA) for name in names]
    votes = pa.concat_tables([VOTES_SCHEMA.empty_table(), *tables])
    place = VOTES_SCHEMA.get_field_index("value")
    return votes.set_column(place, VOTES_SCHEMA.field(place), _in_one_form(votes["value"]))


def _in_one_form(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values in the form of Unicode that labels have; older files have others."""
    others = values.filter(pc.invert(pc.string_is_ascii(values))).unique().to_pylist()
    if all(text_form(value) == value for value in others):
        return values
    given = values.unique()
    here = pa.array([value and text_form(value) for value in given.to_pylist()], pa.string())
    return here.take(pc.index_in(values, given))


def append_votes(home: Location, vendor: str, votes: pa.Table) -> str:
    """Write a file of votes, VOTES_SCHEMA without `ingest`. Returns its name without the suffix: the ingest."""
    name = f"{next_number(files_of_votes(home))}-{vendor}"
    column = pa.array([name], pa.string()).take(pa.array(np.zeros(len(votes), np.int64)))
    table = votes.add_column(VOTES_SCHEMA.get_field_index("ingest"), VOTES_SCHEMA.field("ingest"), column)
    (home / f"{FOLDER}/{name}.parquet").write_table(table.cast(VOTES_SCHEMA))
    return name


def identities_of_votes(votes: pa.Table) -> list[bytes]:
    """`identity_of_vote` of every row."""
    columns = (votes[name].to_pylist() for name in ("item_id", "vendor", "vendor_answer_id", "annotator"))
    return [identity_of_vote(*row) for row in zip(*columns, strict=True)]


def answers_of_votes(votes: pa.Table) -> NDArray[np.int64]:
    """The number of the answer that each row is a version of (V,), in the order of first rows: rows of which
    `identity_of_vote` is the same have the same."""
    vendor_V, item_V, answer_V, annotator_V = (
        codes_of(votes[name]) for name in ("vendor", "item_id", "vendor_answer_id", "annotator")
    )
    # Two ranges of numbers: the vendors' own names of answers, and annotators. Null is -1.
    num_names, num_annotators = (int(codes.max(initial=-1)) + 2 for codes in (answer_V, annotator_V))
    whose_V = np.where(answer_V >= 0, answer_V, num_names + annotator_V + 1)
    of_what_V = item_V * (num_names + num_annotators) + whose_V
    number_V = of_what_V * (int(vendor_V.max(initial=0)) + 1) + vendor_V
    return codes_of(pa.chunked_array([pa.array(number_V)]))


def codes_of(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """The number of each value of a column in the order of first rows (V,), -1 for null."""
    encoded = column.combine_chunks().dictionary_encode()
    found: NDArray[np.int64] = pc.fill_null(encoded.indices, -1).to_numpy().astype(np.int64)
    return found


def newest_versions(votes: pa.Table) -> pa.Table:
    """The newest version of every answer, in the order of first ingest.

    The time of answering decides, and where it is the same or missing the ingest. A version without a time is older
    than one with it.
    """
    rows = newest_rows(votes, answers_of_votes(votes))
    # Where every answer has one version, nothing need be copied.
    return votes if len(rows) == len(votes) else votes.take(pa.array(rows))


def rows_of_people(votes: pa.Table) -> NDArray[np.int64]:
    """The rows with the newest answer of each person on an image, in order: who answers twice has one opinion. Final
    answers, which are of nobody in particular, all stay. Rows as `newest_versions` gives them."""
    person_V, item_V, vendor_V = (codes_of(votes[name]) for name in ("annotator", "item_id", "vendor"))
    pair_V = (item_V * (int(person_V.max(initial=0)) + 1) + person_V) * (int(vendor_V.max(initial=0)) + 1) + vendor_V
    # Final answers each have a number of their own.
    pair_V = np.where(person_V < 0, -1 - np.arange(len(votes)), pair_V)
    return np.sort(newest_rows(votes, codes_of(pa.chunked_array([pa.array(pair_V)]))))


def newest_and_first(votes: pa.Table, undone: Iterable[str]) -> tuple[pa.Table, NDArray[np.int64]]:
    """As `newest_versions`, without those of undone ingests; and the number of the ingest that brought the first
    version of each of these answers, undone or not: what was said before is not new when it is said again."""
    answer_V, number_V = answers_of_votes(votes), ingest_numbers(votes)
    first_A = np.full(int(answer_V.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first_A, answer_V, number_V)
    is_undone = pc.is_in(votes["ingest"], value_set=pa.array(sorted(undone), pa.string())).to_numpy()
    if not is_undone.any():
        live, row_V = votes, answer_V
    else:
        live, row_V = votes.filter(pa.array(~is_undone)), answer_V[~is_undone]
    rows = newest_rows(live, row_V)
    newest = live if len(rows) == len(live) else live.take(pa.array(rows))
    return newest, first_A[row_V if len(rows) == len(live) else row_V[rows]]


def newest_rows(votes: pa.Table, answer_V: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row of the newest version of every answer, by the answer's number."""
    order = np.lexsort((np.arange(len(votes)), times_of(votes), answer_V))
    # Sorted by answer, the last of each is the newest.
    newest: NDArray[np.int64] = order[np.append(np.diff(answer_V[order]) > 0, True)[: len(order)]]
    return newest


def ingest_numbers(votes: pa.Table) -> NDArray[np.int64]:
    """The number of each vote's ingest (V,), from 1 on."""
    numbers = [int(name[:6]) for name in votes["ingest"].unique().to_pylist()]
    return np.array(numbers, np.int64)[codes_of(votes["ingest"])]


def micros_of(at: datetime) -> int:
    """A time in microseconds since 1970, exactly."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def times_of(votes: pa.Table) -> NDArray[np.int64]:
    """Microseconds since 1970 of each answer (N,), the least number where it is not known."""
    micros = pc.fill_null(votes["answered_at"].cast(pa.int64()), int(NO_TIME))
    found: NDArray[np.int64] = micros.to_numpy()
    return found
