"""Classes that a vendor's file gives by their places: they are looked up among those that the image was sent with."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from engine.campaign.folder import Campaign
from engine.campaign.handed_out import all_batches
from engine.errors import InputError
from engine.handoff.exchange import Value
from engine.tables.values import ClassNumber


class SentClasses:
    """The classes that each image was sent with. Nothing is read before it is asked for."""

    def __init__(self, campaign: Campaign, vendor: str) -> None:
        self._campaign, self._vendor = campaign, vendor
        self._of_items = cache(self._read)

    def of(self, item_id: str) -> Sequence[list[str]]:
        """The classes of each batch that held the image, without repeats: those of this vendor where it was sent the
        image, else of all."""
        return self._of_items()[item_id]

    def _read(self) -> dict[str, tuple[list[str], ...]]:
        found: dict[str, tuple[list[str], ...]] = {}
        batches = all_batches(self._campaign.home, self._campaign.round + 1)
        for is_own in (True, False):
            here: dict[str, tuple[list[str], ...]] = {}
            for batch in batches:
                if (batch.vendor == self._vendor) == is_own:
                    classes = batch.manifest["sending"]["question"]["classes"]
                    for item_id in batch.rows()["item_id"].to_pylist():
                        before = here.get(item_id, ())
                        here[item_id] = before if classes in before else (*before, classes)
            found = here | found
        return found


def with_names(value: Value | None, sent: SentClasses, item_id: str, where: str) -> Value | None:
    """The value with the name of each class that is given by its place. Raises InputError where the place is that of no
    class, or of several, because the batches of the image had other classes."""

    def named(part: Any) -> Any:
        if isinstance(part, dict) and isinstance(part.get("label"), ClassNumber):
            return {**part, "label": named(part["label"])}
        if not isinstance(part, ClassNumber):
            return part
        lists, number = sent.of(item_id), int(part[1:])
        names = {classes[number] for classes in lists if number < len(classes)}
        if len(names) != 1:
            what = (
                f"{' and '.join(map(repr, sorted(names)))} in batches of this image" if names else "none that was sent"
            )
            raise InputError(f"{where}: class {number} is {what}; give the name of the class")
        return names.pop()

    return [named(part) for part in value] if isinstance(value, list) else named(value)
