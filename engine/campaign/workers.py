"""What a campaign's stages need on the nodes that work for them, and a connection to a cluster that has it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import braceexpand

from engine.campaign.folder import Campaign
from engine.campaign.stages import Run
from engine.cluster.ray_session import ray_session
from engine.cluster.reach import Need, require_reach
from engine.config.input_options import MEMBER
from engine.errors import VaalError
from engine.pool.manifest import read_shards
from engine.storage.globs import matches_of
from engine.storage.location import Location


@contextmanager
def session_with_workers(campaign: Campaign, run: Run) -> Iterator[None]:
    """Connect to Ray for a stage whose tasks read the campaign and its pool.

    Raises InputError unless every node can, and as `ray_session`.
    """
    with ray_session(run.address):
        require_reach(need_of(campaign), run.address)
        yield


def require_workers(campaign: Campaign, run: Run) -> None:
    """As `session_with_workers` at its start, for nodes that came since. Raises InputError."""
    require_reach(need_of(campaign), run.address)


def need_of(campaign: Campaign) -> Need:
    """What workers read and import: of the pool, whose shards are below one root, its first and last shard."""
    config = campaign.config
    shards = read_shards(campaign.home).in_round(campaign.round).at_root(config.pool.root)
    masks = config.labels.masks if config.task_kind == "segmentation" else ""
    files = (config.pool.embeddings, config.encoder.weights, masks, *config.task.files)
    reads = [*(shard.url for shard in (*shards[:1], *shards[-1:])), *(_first(path) for path in files if path)]
    factories = (config.encoder.model, config.task.model)
    return Need(
        campaign=campaign.home.url,
        reads=tuple(dict.fromkeys(filter(None, reads))),
        modules=tuple(sorted({factory.partition(":")[0] for factory in factories if factory})),
    )


def _first(path: str) -> str:
    """The first file or folder that a path with globs and braces names; "" where there is none, which the stage that
    reads it reports, or where it is a file of each sample."""
    if path.startswith(MEMBER):
        return ""
    with suppress(VaalError, ValueError):
        found = (match for text in braceexpand.braceexpand(path) for match in matches_of(Location.of(text)))
        return next((match.url for match in found), "")
    return ""
