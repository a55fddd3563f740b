"""Making a campaign, opening it at a round, and changing its configuration from a round on."""

import pkgutil
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from operator import attrgetter
from typing import Any

import pyarrow.compute as pc

from engine.campaign.advice import force_command
from engine.campaign.as_made import FIXED_FILE, fixed_values, is_fixed, require_as_made, require_fixed
from engine.campaign.changes import require_some
from engine.campaign.decisions import never_picked
from engine.campaign.first_labels import begin_without_labels, import_labels
from engine.campaign.folder import Campaign, is_closed, read_overrides, round_home
from engine.campaign.handed_out import batches, completed, picked_items
from engine.campaign.heartbeat import PROGRESS_FILE, alone
from engine.campaign.labels import Identity, read_labels, read_snapshot
from engine.campaign.stages import STAGES, Log
from engine.campaign.unlabelled import as_labels_allow, in_words
from engine.config.input_options import MEMBER
from engine.config.options import PATHS, CampaignConfig, changes_results
from engine.config.texts import parse_settings, plural
from engine.config.toml import override, parse_campaign, tables_completed, to_toml
from engine.errors import ConfigError, InputError, StorageError, VaalError
from engine.pool.embedding_files import index_embeddings
from engine.pool.exclusions import read_exclusions
from engine.pool.manifest import list_shards, look_up, read_shards, write_shards
from engine.pool.metadata import import_metadata, read_strata, some_meet
from engine.storage.location import Location
from engine.storage.placing import require_folder
from engine.tables.item_keys import items_of, num_items, rows_of_items

TRY_TASK = "engine.models.task_trial:try_for_init"
"""Refuses a task learner of the user's that cannot be used. It needs torch, and is imported when it is asked."""
Admit = Callable[[dict[Identity, str]], None]


def create(
    url: str, patterns: list[str], labels: str, config: CampaignConfig, log: Log, admit: Admit = lambda _labels: None
) -> Campaign:
    """Make a campaign. `campaign.toml` is written last: without it, init has not happened. `labels` is the file of the
    first labels, "" for none; `admit` looks at them, and may refuse them.

    Raises:
        ConfigError: the folder already holds a campaign, or the rounds of one.
        InputError: a shard, the label file or the files of embeddings are not what they should be; nothing is left
            behind.
        BusyError: another run is at work in the folder.
    """
    home = Location.of(url)
    _require_new(home)
    with alone(home, "init"):
        # Another one may have been made meanwhile.
        _require_new(home)
        parts = [part for part in (home / "pool", home / "labels") if not (part.children() or part.folders())]
        try:
            return _create(home, patterns, labels, config, log, admit)
        except VaalError:
            # What is refused leaves nothing behind.
            with suppress(StorageError):
                for part in parts:
                    part.remove()
            raise


def _require_new(home: Location) -> None:
    require_folder(home)
    if (home / "campaign.toml").exists():
        fix = f"use another folder, or continue: vaal round {home.quoted}"
        raise ConfigError(f"{home}: already holds a campaign; {fix}")
    if (home / "rounds").folders():
        raise ConfigError(f"{home}: has rounds of a campaign but no campaign.toml; restore that, or use another folder")


def _create(
    home: Location, patterns: list[str], labels: str, config: CampaignConfig, log: Log, admit: Admit
) -> Campaign:
    patterns = patterns or config.pool.shards
    shards, root = list_shards(patterns, config.pool.root)
    log(f"{plural(len(shards), 'shard')}, {shards.num_bytes / 1e6:,.1f} MB below {root}")
    if (embeddings := config.pool.embeddings) and not embeddings.startswith(MEMBER):
        # A wrong path is found here, and not when a cluster is up.
        index_embeddings(embeddings)
    write_shards(home, shards)
    if config.pool.metadata:
        import_metadata(home, Location.of(config.pool.metadata), shards.names.to_pylist())
        if config.select.stratify:
            read_strata(home, config.select.stratify)
    _check_kept_out(home, config)
    if labels:
        write_shards(home, import_labels(home, Location.of(labels), shards, config, log))
        admit(read_snapshot(home).values)
    else:
        begin_without_labels(home, config)
    check_budget(Campaign(home, config, 0))
    resolved = override(
        config,
        {
            "pool.shards": [pattern if "://" in pattern else Location.of(pattern).url for pattern in patterns],
            **_from_anywhere({key: attrgetter(key)(config) for key in PATHS}),
            "pool.root": root,
            **({} if config.salt.strip("0") else {"salt": secrets.token_hex(16)}),
        },
        "init",
    )
    (home / FIXED_FILE).write_json(fixed_values(resolved))
    (home / "campaign.toml").write_bytes(to_toml(resolved).encode())
    made = as_labels_allow(Campaign(home, resolved, 0))
    if not labels:
        log(in_words(made))
    return made


def open_campaign(
    url: str,
    settings: Sequence[str] = (),
    round_number: int | None = None,
    *,
    force: bool = False,
    with_labels: bool = False,
) -> Campaign:
    """The campaign at its current round, or at an earlier one.

    `settings` ("key=value") change the configuration from this round on; they are kept in the round's overrides.json.
    With `force`, options of the selection may change after it was handed out; `with_labels`, the configuration is that
    of a round with labels, whether there are some or not.

    Raises:
        InputError: there is no campaign, or no such round.
        ConfigError: a setting is unknown, wrong, or too late for this round; or campaign.toml was edited since stages
            were made with it.
        BusyError: settings are given while another run is at work on the campaign.
    """
    home = Location.of(url)
    source = home / "campaign.toml"
    if not source.exists():
        make = f"vaal init {home.quoted} --pool URL --labels FILE"
        raise InputError(f"{home}: no campaign here; correct the path, or make one: {make}")
    config = parse_campaign(source.read_bytes(), str(source))
    current = current_round(home)
    if round_number is not None and not 0 <= round_number <= current:
        raise InputError(f"--round {round_number}: the campaign is in round {current}; give 0 to {current}")
    number = current if round_number is None else round_number
    if settings and number < current:
        raise ConfigError(f"--set with --round {number}: an earlier round stays as it was made; leave out --set")
    for earlier in range(number + 1):
        config = override(config, read_overrides(home, earlier), f"{round_home(home, earlier)}/overrides.json")
        if earlier >= number - 1:
            require_as_made(as_labels_allow(Campaign(home, config, earlier)))
    require_fixed(home, config)
    campaign = Campaign(home, config, number)
    changed = _change(campaign, settings, force=force) if settings else campaign
    return changed if with_labels else as_labels_allow(changed)


@contextmanager
def opened(
    url: str, settings: Sequence[str] = (), round_number: int | None = None, *, force: bool = False
) -> Iterator[Campaign]:
    """As `open_campaign`. With settings the campaign is had to oneself while the body runs, so that no other run works
    with them, or changes them; they are not kept if the body is refused before it wrote anything.

    Raises BusyError if there are settings, and another run is at work on the campaign.
    """
    if not settings:
        yield open_campaign(url, (), round_number, force=force)
        return
    overrides = open_campaign(url, (), round_number).round_home / "overrides.json"
    with alone(Location.of(url), "--set"):
        before = overrides.read_bytes() if overrides.exists() else None
        campaign = open_campaign(url, settings, round_number, force=force)
        was_there = _written(campaign)
        try:
            yield campaign
        except (ConfigError, InputError) as error:
            if _written(campaign) != was_there or overrides.read_bytes() == before:
                raise
            overrides.delete() if before is None else overrides.write_bytes(before)
            if "vaal " not in str(error):
                raise
            # The command that is advised would run without them.
            raise type(error)(f"{error}; the options of this command were not kept: give them again") from error


def _written(campaign: Campaign) -> list[Any]:
    """What stages have written in the round, by name and size."""
    names = ("train", "train/checkpoint", "ledger", "scores", "selection", "handed_out", "report")
    # A sign of life is no result.
    files = ({**folder.children(), PROGRESS_FILE: 0} for folder in map(campaign.stage, names))
    return [*files, *(campaign.stage(name).folders() for name in names)]


def _change(campaign: Campaign, settings: Sequence[str], *, force: bool) -> Campaign:
    values = tables_completed(campaign.config, _from_anywhere(parse_settings(settings)))
    changed = replace(campaign, config=override(campaign.config, values, "--set"))
    old, new = campaign.config.model_dump(), changed.config.model_dump()
    for key in values:
        section, _, name = key.partition(".")
        if (old[section] == new[section]) if not name else (old[section][name] == new[section][name]):
            continue
        if is_fixed(key):
            raise ConfigError(f"--set {key}: fixed at init; start a new campaign to change it")
        frozen = [stage.name for stage in STAGES if {section, key} & {*stage.freezes}]
        frozen_by = [folder for name in frozen for folder in completed(campaign, name)]
        if changes_results(key) and frozen_by and not (force and section == "select"):
            again = ""
            if section == "select":
                again = f"; or pick other images as well: {force_command(campaign, settings)}"
            elif not completed(campaign, "handoff"):
                manifest = frozen_by[0] / "manifest.json"
                again = f"; or delete {manifest} first: nothing of the round was sent yet, and it is made again"
            raise ConfigError(
                f"--set {key}: too late for round {campaign.round:03d}, {frozen_by[0]} is complete; "
                f"set it when the round's labels are ingested and the next round begins{again}"
            )
    if (asked := changed.config.asks_of_task) and asked != campaign.config.asks_of_task:
        pkgutil.resolve_name(TRY_TASK)(changed.config)
    _look_at_files(campaign, changed)
    before = read_overrides(campaign.home, campaign.round)
    if {**before, **values} != before:
        with alone(campaign.home, "--set"):
            (campaign.round_home / "overrides.json").write_json({**before, **values})
    return changed


def _look_at_files(campaign: Campaign, changed: Campaign) -> None:
    """Raises ConfigError or InputError if what changed options name cannot be used."""
    before, now = campaign.config, changed.config
    if (before.select.where, before.select.exclude) != (now.select.where, now.select.exclude):
        _check_kept_out(campaign.home, now)
    if before.pool.root != now.pool.root:
        moved = read_shards(campaign.home).in_round(campaign.round).at_root(now.pool.root)
        require_some(moved, look_up(moved).are_there)


def _from_anywhere(values: dict[str, Any]) -> dict[str, Any]:
    """Options by dotted key, where paths name the same file in any folder: workers have folders of their own."""

    def absolute(value: Any) -> Any:
        if isinstance(value, list):
            return [absolute(one) for one in value]
        return Location.of(value).url if isinstance(value, str) and value and not value.startswith(MEMBER) else value

    return {key: absolute(value) if key in PATHS else value for key, value in values.items()}


def current_round(home: Location) -> int:
    """The first round that has not ended.

    A round whose images were handed out ends as `engine.campaign.settling` says. One of which nothing was handed out
    ends with the first labels of its picks, and every round with labels of a later one. Labels that were retracted
    count too: a round does not come back.
    """
    labelled = set(pc.unique(read_snapshot(home, ["round"]).history["round"]).drop_null().to_pylist())
    last = max(labelled, default=-1)
    ended = (
        number < last or is_closed(home, number) or (number in labelled and not batches(home, number))
        for number in count()
    )
    return next(number for number, has_ended in enumerate(ended) if not has_ended)


def _check_kept_out(home: Location, config: CampaignConfig) -> None:
    """Raises ConfigError for a select.where that no shard meets, InputError for a file of select.exclude that cannot be
    used: now, and not when the pool is scored."""
    if config.select.where:
        some_meet(home, config.select.where, read_shards(home).names)
    if config.select.exclude:
        read_exclusions(config.select.exclude)


def check_budget(campaign: Campaign) -> None:
    """Raises ConfigError when every shard has been counted and fewer items than the budget can be picked."""
    home, budget, where = campaign.home, campaign.config.select.budget, campaign.config.select.where
    shards = read_shards(home).in_round(campaign.round)
    shards = shards.where(~shards.have_left)
    if where:
        shards = shards.where(some_meet(home, where, shards.names))
    out = picked_items(home, campaign.round)
    taken = items_of(out, read_labels(home), rows_of_items(never_picked(home)))
    taken = taken.filter(pc.is_in(taken["shard"], value_set=shards.names))
    counts = shards.table["num_items"]
    num_left = (pc.sum(counts).as_py() or 0) - num_items(taken)
    is_counted = pc.all(pc.greater(pc.fill_null(counts, 0), 0)).as_py()
    if is_counted and budget > num_left:
        fix = f"lower it: --set select.budget={num_left}" if num_left > 0 else "nothing is left to pick"
        rest = f", of shards that meet select.where={where}" if where else ""
        raise ConfigError(
            f"select.budget={budget} is more than the {max(0, num_left)} items of the pool that are neither labelled "
            f"nor out at a vendor{rest}; {fix}"
        )
