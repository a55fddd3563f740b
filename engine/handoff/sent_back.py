"""What was sent to a vendor is recognised where it is given as if it had come back."""

import hashlib
from collections.abc import Iterable

from engine.campaign.folder import Campaign
from engine.campaign.handed_out import all_batches
from engine.handoff.answer_files import BUFFER_BYTES
from engine.handoff.exchange import AnswerFile
from engine.handoff.vendor_files import files_of


class TaskFiles:
    """The task files of all batches of a campaign, by name and content."""

    def __init__(self, campaign: Campaign) -> None:
        batches = all_batches(campaign.home, campaign.round + 1)
        self._known = {pair for batch in batches for pair in files_of(batch).items()}
        self._names = {name for name, _ in self._known}

    def named(self, files: Iterable[AnswerFile]) -> str:
        """The path of the first of these files that is a task file as it was sent; "" where none is."""
        for file in files:
            name = file.path.rpartition("/")[2]
            if name in self._names and (name, _digest(file)) in self._known:
                return file.path
        return ""


def _digest(file: AnswerFile) -> str:
    digest = hashlib.sha256()
    with file.open() as stream:
        while content := stream.read(BUFFER_BYTES):
            digest.update(content)
    return digest.hexdigest()
