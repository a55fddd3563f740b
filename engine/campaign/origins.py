"""By which rule each labelled image was picked: the gate needs it, because picks for uncertainty are concentrated."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.folder import is_complete, round_home
from engine.campaign.handed_out import batches
from engine.campaign.labels import INITIAL, Identity, identities
from engine.campaign.manifests import read_committed
from engine.storage.location import Location
from engine.tables.selections import ORIGIN_CONTROL, ORIGIN_QUERY


def picked_origins(home: Location, rounds: Iterable[int]) -> dict[Identity, str]:
    """The origin of every item that was picked or handed out in these rounds.

    Where an earlier version picked, all that is known is whether an item was in the control arm.
    """
    found: dict[Identity, str] = {}
    for number in sorted(rounds):
        folder = round_home(home, number) / "selection"
        tables = [batch.images() for batch in batches(home, number)]
        if is_complete(folder):
            tables.append(read_committed(folder, "selection.parquet"))
        for table in tables:
            pairs = zip(identities(table), _origins(table), strict=True)
            found |= {item: origin for item, origin in pairs if origin or item not in found}
    return {item: origin or ORIGIN_QUERY for item, origin in found.items()}


def _origins(picks: pa.Table) -> list[str]:
    """The origin of each pick, "" where it is not known."""
    if "origin" in picks.column_names:
        return [origin or "" for origin in picks["origin"].to_pylist()]
    if "arm" in picks.column_names:
        return [ORIGIN_CONTROL if arm == "control" else "" for arm in picks["arm"].to_pylist()]
    return [""] * len(picks)


def origins_of(home: Location, labels: pa.Table) -> pa.Array:
    """The origin of every label, rows of SNAPSHOT_SCHEMA. Where it was not kept, a label without a round is one of
    init, and another has the origin of its image in the selection of its round."""
    origins = labels["origin"].cast(pa.string()).combine_chunks()
    is_first = labels["round"].is_null().combine_chunks()
    origins = pc.if_else(pc.and_(origins.is_null(), is_first), INITIAL, origins)
    if not origins.null_count:
        return origins
    lacking = labels.filter(origins.is_null())
    picked = picked_origins(home, pc.unique(lacking["round"]).to_pylist())
    found = pa.array([picked.get(item, ORIGIN_QUERY) for item in identities(lacking)], pa.string())
    return pc.replace_with_mask(origins, origins.is_null(), found)
