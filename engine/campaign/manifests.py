"""The manifests of the stages, as types. A manifest is written last: a stage is complete exactly when it exists."""

import importlib.metadata
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NotRequired, TypeVar, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from engine.campaign.folder import Campaign, is_complete
from engine.campaign.stages import Effort, stage_of
from engine.errors import ConfigError, InputError
from engine.storage.documents import Moment, read_document
from engine.storage.location import Location
from engine.tables.score_reader import is_newest
from engine.tables.selections import KINDS


class Config(TypedDict):
    """The configuration that a stage used, of which the options of the selection are compared later."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    select: dict[str, Any]


class Manifest(TypedDict):
    """The fields of every manifest. `inputs` and `files` map names to SHA-256."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    round: int
    stage: str
    counts: dict[str, int]
    seed: int
    inputs: dict[str, str]
    files: dict[str, str]
    config: Config
    code_version: str
    completed_at: Moment


class Lift(TypedDict):
    """How many times rarer labels are in the `share` of the pool with the lowest logits: see
    `vaal.signal.lift_interval`. `high` is null where it has no bound."""

    value: float
    low: float
    high: float | None
    share: float


class Findings(TypedDict):
    """What held-out images show about the networks: see `vaal.signal.Diagnosis`. `findings` has a line a fault, and
    `lift` is missing where an earlier version trained, or too few images are held out. `is_trained` is false,
    and else missing, where no score asked for VAAL."""

    auc: float
    auc_low: float
    auc_high: float
    confidence: float
    held_out: dict[str, int]
    active_units: int
    latent_units: int
    kl_per_unit: list[float]
    mean_squared_error: float | None
    saturation: float
    findings: list[str]
    is_trained: NotRequired[bool]
    lift: NotRequired[Lift]


class TrainManifest(Manifest):
    """`losses` are those of the last step, nats; `waiting_for_images` is a share of the time; `left_out` are damaged
    shards, with their faults; `fold_round` is the round in the hash of the folds, 0 where it is missing. `reused_round`
    is the round that was trained, where these are its networks. `embedding`, where the networks see embeddings: their
    length, and the mean that is taken away and the factor by which the rest is multiplied."""

    device: str
    effort: NotRequired[Effort]
    losses: dict[str, float]
    waiting_for_images: NotRequired[float]
    left_out: NotRequired[dict[str, str]]
    fold_round: NotRequired[int]
    reused_round: NotRequired[int]
    embedding: NotRequired[dict[str, Any]]
    signal: Literal["present", "none"]
    diagnosis: Findings
    task: NotRequired[dict[str, Any]]


class ShardEntry(TypedDict):
    """A shard in the scores manifest: see `engine.tables.scores.ShardRecord`. What is empty is left out."""

    shard: str
    file: str
    listed: int
    scored: int
    quarantined: int
    sha256: str
    size_bytes: int
    failure: NotRequired[str]
    unused_files: NotRequired[int]
    unused_bytes: NotRequired[int]
    unused_example: NotRequired[str]
    errors: NotRequired[dict[str, int]]


class ScoresManifest(Manifest):
    """`device` is empty where an earlier run scored everything. `errors` counts quarantined items by "stage/error".

    `ledger` names the files of the round's ledger by SHA-256, and `content` is a hash of what they say: read them with
    `engine.campaign.scored_shards`. An earlier version wrote the entries themselves, as `shards`."""

    device: str
    effort: NotRequired[Effort]
    errors: dict[str, int]
    ledger: NotRequired[Annotated[dict[str, str], Field(min_length=1)]]
    content: NotRequired[str]
    shards: NotRequired[Annotated[list[ShardEntry], Field(min_length=1)]]


BY_SCORE = "select.acquisition"
"""What decided the gate where another score than VAAL's ranks, and no test is asked."""
BY_WORD = "labels.are_biased"
"""What decided the gate where the user says whether the labels are biased, and no test is asked."""


class Gate(TypedDict):
    """Whether there is something to complete, and `by` what that was decided: deficit, auc or labels.are_biased.

    The deficit of the labels, by chance, its p-value, the share of the pool that lacks labels, and the number of coarse
    clusters: null and 0 where the scores have no clusters. See `vaal.deficit.Deficit`.
    """

    speaks: bool
    by: str
    value: float | None
    by_chance: float | None
    p: float | None
    lacking: float | None
    clusters: int


class SelectionManifest(Manifest):
    """`when_no_signal` is what was done without a signal, null with one. Scores are null where they did not decide.
    `first_ranks` is the acquisition function that ranked the whole pool, also where another one ranked the candidates.
    `scored_by` is the one whose scores the column `score` of the rows holds.
    `picks` is a hash of the picked items: see `engine.campaign.handed_out`. `likeness` says whether near latents count
    as duplicates: see `vaal.duplicates.likeness`. `branch` is what was done: see `vaal.diversity.BRANCHES`, and `gate`
    what decided that.
    """

    signal: Literal["present", "none"]
    when_no_signal: str | None
    round_seed: int
    highest_picked_score: NotRequired[float | None]
    highest_candidate_score: NotRequired[float | None]
    highest_picked_logit: NotRequired[float | None]
    highest_candidate_logit: NotRequired[float | None]
    first_ranks: NotRequired[str]
    scored_by: NotRequired[str]
    objective: float | None
    picks: NotRequired[str]
    likeness: NotRequired[dict[str, Any] | None]
    branch: NotRequired[str]
    gate: NotRequired[Gate]


class Sending(TypedDict):
    """What a batch is, as it was sent: its name for the vendor, how many people label each image, what an answer costs,
    and the question. `disputed`: its images were out before, and more people are asked. `waiting` counts the picks of
    the selection that no batch held then, and may go out later. `ingests` is how many files of votes there were; absent
    from older batches. `place` is where links of images point, empty for
    files; `links_expire_at` is null where they do not end."""

    vendor: str
    name: str
    annotators: Annotated[int, Field(ge=1, lt=2**31)]
    price: Annotated[float, Field(ge=0)]
    question: dict[str, Any]
    disputed: bool
    waiting: Annotated[int, Field(ge=0, lt=2**31)]
    ingests: NotRequired[Annotated[int, Field(ge=0, lt=2**31)]]
    place: str
    links_expire_at: Moment | None


class HandoffManifest(Manifest):
    """The record of a batch that was handed out. `inputs.picks` is a hash of the selection that it came from."""

    sending: Sending


M = TypeVar("M", bound=Manifest)
COUNTS: dict[str, set[str]] = {
    "train": {"steps"},
    "scores": {"shards", "listed", "scored", "quarantined"},
    "selection": {"scored", "eligible", "candidates", "control", "picked", "picked_before"}
    | {f"duplicates_{kind}" for kind in KINDS},
    "handoff": {"images"},
    "report": set(),
}
"""The counts that a stage's manifest must hold."""


RESCORES = "rescores"
"""The folder of a round's second pass, beside those of its stages."""


def read_manifest(campaign: Campaign, name: str, kind: type[M]) -> M:
    """The manifest of a complete stage of the campaign's round.

    Raises:
        InputError: the stage is not complete (the text names the command that completes it), or the file is damaged.
        ConfigError: a field is missing, or is not of its type.
    """
    folder = campaign.stage(name)
    if not is_complete(folder):
        home, command = campaign.home.quoted, stage_of(name).command
        raise InputError(
            f"{folder}: not complete; run: vaal {command} {home}, or all that is missing: vaal round {home}"
        )
    return read_complete(folder, name, kind)


def read_complete(folder: Location, name: str, kind: type[M]) -> M:
    """The manifest in the folder of a complete stage. Raises as `read_manifest` does."""
    manifest = read_document(folder / "manifest.json", kind)
    stage, fix = stage_of(name).name, "restore it from a copy, or use the version that wrote it"
    if missing := COUNTS[stage] - manifest["counts"].keys():
        raise ConfigError(f"{folder}/manifest.json: counts.{min(missing)}: missing; {fix}")
    if stage == "scores" and not {"ledger", "content"} <= manifest.keys() and "shards" not in manifest:
        raise ConfigError(f"{folder}/manifest.json: ledger: missing; {fix}")
    if stage == "handoff" and "picks" not in manifest["inputs"]:
        raise ConfigError(f"{folder}/manifest.json: inputs.picks: missing; {fix}")
    return manifest


def read_committed(folder: Location, name: str, columns: list[str] | None = None, known: str = "") -> pa.Table:
    """A Parquet file of a complete stage, or these columns of it.

    Args:
        known: its SHA-256 where it was read before, by what is held of it.

    Raises InputError if it is not the one that the manifest names, or not the known one any more.
    """
    files, advice = read_document(folder / "manifest.json", Manifest)["files"], "restore it from a copy"
    if known and files.get(name) != known:
        raise InputError(f"{folder}/{name}: made again while it was read; run the command again")
    if folder.name == "selection" and is_newest(folder):
        # What is handed out is recorded elsewhere: the same images are picked again, or it is refused.
        advice += f", or delete {folder}/manifest.json, then run: vaal select {folder.url.rpartition('/rounds/')[0]}"
    content = (folder / name).read_verified(files.get(name), advice)
    return pq.read_table(pa.BufferReader(content), columns=columns)


def write_manifest(
    campaign: Campaign,
    name: str,
    kind: type[M],
    *,
    inputs: dict[str, str],
    counts: dict[str, int],
    files: dict[str, str],
    **details: Any,
) -> M:
    """Complete a stage; `details` are the further fields of `kind`. Returns the manifest."""
    manifest = {
        "round": campaign.round,
        "stage": name,
        "counts": counts,
        "seed": campaign.config.train.seed,
        "inputs": inputs,
        "files": files,
        "config": campaign.config.shown(),
        "code_version": importlib.metadata.version("vaal"),
        "completed_at": datetime.now(UTC).isoformat(),
        **details,
    }
    if missing := cast("Any", kind).__required_keys__ - manifest.keys():
        raise TypeError(f"{name}: the manifest lacks {sorted(missing)}")
    (campaign.stage(name) / "manifest.json").write_json(manifest)
    return cast("M", manifest)
