"""The commands that people are advised to run next: each is whole, works when it is pasted, and takes back nothing
that it does not name."""

import shlex
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from engine.campaign.decisions import released
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import completed
from engine.campaign.ledger import DISPUTED, Ledger
from engine.campaign.outcomes import Counts
from engine.campaign.settling import Progress
from engine.campaign.stages import DEFAULT_VENDOR, STAGES


def next_command(campaign: Campaign, ledger: Ledger, progress: Progress) -> str:
    """The command that goes on."""
    home = campaign.home.quoted
    if progress.is_due or not all(completed(campaign, stage.name) for stage in STAGES):
        return f"vaal round {home}"
    own = ledger.of_round(campaign.round)
    asked = [number for number in own if is_waited_for(ledger, number)]
    if not asked and progress.waiting:
        return send_command(campaign, ledger)
    if not asked and any(ledger.counts(number).get("disputed") for number in own):
        return disputed_advice(campaign, ledger)
    return f"vaal ingest {home} FILE" + _option("--from", _vendor(ledger, [*own, *asked]))


def send_command(campaign: Campaign, ledger: Ledger) -> str:
    """The command that sends the picks that wait, to the vendor of the round's newest batch."""
    return f"vaal export {campaign.home.quoted}" + _option("--to", _vendor(ledger, ledger.of_round(campaign.round)))


def ask_command(campaign: Campaign, ledger: Ledger) -> str:
    """The command that asks more people about the disputed images: at the vendor that the most of them were sent to, of
    several the one that got them last."""
    is_disputed_R = (ledger.state_R == DISPUTED) & ~ledger.gold_R
    counts = np.bincount(ledger.sent.batch_of_each()[is_disputed_R], minlength=len(ledger.batches))
    most = [int(number) for number in np.flatnonzero(counts == counts.max(initial=0))]
    return f"vaal export {campaign.home.quoted} --disputed --to {_vendor(ledger, most)}"


def may_be_asked(campaign: Campaign, ledger: Ledger) -> Counts:
    """The places in the ledger's items of the disputed images that more people may be asked about, the least certain
    first: not those of which more people were asked, and that was taken back."""
    free, disputed = released(campaign.home), ledger.disputed
    gone = set[str]()
    for number, batch in enumerate(ledger.batches):
        is_back = ledger.back_R[ledger.sent.slice_of(number)] > 0
        if batch.manifest["sending"]["disputed"] and is_back.any():
            names = batch.rows(["item_id"])["item_id"].filter(pa.array(is_back)).to_pylist()
            gone.update(name for name in names if (batch.record, name) not in free)
    if not gone:
        return disputed
    names = ledger.items.rows(disputed, ["item_id"])["item_id"].to_pylist()
    found: Counts = disputed[np.array([name not in gone for name in names], bool)]
    return found


def disputed_advice(campaign: Campaign, ledger: Ledger) -> str:
    """The command that asks more people about the disputed images; where all were taken back, that lets them go."""
    if len(may_be_asked(campaign, ledger)):
        return ask_command(campaign, ledger)
    numbers = np.unique(ledger.sent.batches_of(np.flatnonzero((ledger.back_R > 0) & (ledger.state_R == DISPUTED))))
    records = [
        ledger.batches[number].record for number in numbers if ledger.batches[number].manifest["sending"]["disputed"]
    ]
    return f"they were taken back; first {back_command(campaign, records, pick_again=True)}"


def back_command(campaign: Campaign, records: Iterable[str], *, pick_again: bool) -> str:
    """The command that takes back what is out of these batches; with `pick_again` so that it, and what was taken back
    before, may be sent again."""
    own = f"rounds/{campaign.round:03d}/handed_out/"
    words = [word for record in records for word in ("--batch", record.removeprefix(own))]
    more = ["--pick-again"] if pick_again else []
    return f"vaal handoff {campaign.home.quoted} recall {shlex.join([*words, *more])}"


def force_command(campaign: Campaign, settings: Sequence[str] = ()) -> str:
    """The command that picks again in a round whose images are out, with these settings; and what becomes of those."""
    words = shlex.join([word for setting in settings for word in ("--set", setting)])
    command = f"vaal select --force {campaign.home.quoted} {words}".rstrip()
    return f"{command} (what is out at a vendor stays out, and stays bought)"


def is_waited_for(ledger: Ledger, number: int) -> bool:
    """Whether answers that a batch asked for are still to come."""
    return bool((ledger.waited_for_of(number) & ~ledger.gold_R[ledger.sent.slice_of(number)]).any())


def _vendor(ledger: Ledger, numbers: list[int]) -> str:
    """The vendor of the last of these batches."""
    return ledger.batches[numbers[-1]].vendor if numbers else DEFAULT_VENDOR


def _option(name: str, vendor: str) -> str:
    return "" if vendor == DEFAULT_VENDOR else f" {name} {vendor}"
