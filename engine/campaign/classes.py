"""The only classes that labels may have, where an option names them."""

import difflib
import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from engine.campaign.outcomes import label_text
from engine.config.options import CampaignConfig
from engine.config.texts import list_setting
from engine.tables.class_lists import classes_in
from engine.tables.values import class_name, class_of

MOST_NAMED = 30
"""Classes in a line."""


class Classes(NamedTuple):
    """The only classes there are, and the option that lists them; none where any may come."""

    names: list[str]
    option: str

    def fault(self, label: str) -> str:
        """Why a label cannot be one, with the most similar one that can; "" if it can."""
        if not self.names or label in self.names:
            return ""
        known = {name.casefold(): name for name in self.names}
        close = difflib.get_close_matches(label.casefold(), known, n=1)
        why = f"label {label!r} is not one of {self.option}"
        return f"{why}; did you mean {known[close[0]]!r}?" if close else why

    def advice(self, labels: Iterable[str], command: str = "") -> str:
        """The classes, and how these labels are allowed, too, by a command or by an option of the present one."""
        asked = list(dict.fromkeys(labels))
        names = ", ".join(self.names[:MOST_NAMED])
        if (more := len(self.names) - MOST_NAMED) > 0 or len(asked) > MOST_NAMED:
            return f"{self.option} has {names}" + (f" and {more:,} more" if more > 0 else "")
        what = ", ".join(map(repr, asked))
        setting = list_setting(self.option, self.names + asked)
        return f"{self.option} has {names}; to allow {what}, too: {command}{setting}"


def joined(fault: str, advice: str) -> str:
    """A fault with advice after it."""
    return f"{fault} {advice}" if fault.endswith("?") else f"{fault}; {advice}"


def classes_of(config: CampaignConfig, first: Callable[[], Iterable[str]] = list) -> Classes:
    """The classes that answers and corrections may have. `first` gives the first labels."""
    asked, allowed = config.handoff.question.classes, config.labels.classes
    if asked:
        return Classes([class_name(name) for name in asked], "handoff.question.classes")
    if allowed == "from-init":
        return Classes(names_in_all(first(), config.handoff.question.task), "labels.classes")
    return Classes([class_name(name) for name in allowed], "labels.classes")


def names_in(label: str, task: str) -> list[str]:
    """The classes in a label, by the task of the question: several classes and shapes are a JSON list. A mask of a file
    need not name one, and what is no list is one class."""
    try:
        values: Any = label if task == "class" else json.loads(label)
    except ValueError:
        values = label
    parts = values if isinstance(values, list) else [label]
    names = [str(part.get("label", "")) if isinstance(part, dict) else str(part) for part in parts]
    return [name for name in names if name]


def names_in_all(labels: Iterable[str], task: str) -> list[str]:
    """The classes in labels, each once, sorted; see `names_in`."""
    return sorted({name for label in set(labels) for name in names_in(label, task)})


def new_names(labels: Iterable[str], history: Iterable[str], task: str) -> list[str]:
    """The classes in these labels that no earlier label had. Labels of shapes and of masks in files name none."""
    if task not in ("class", "classes"):
        return []
    return sorted(set(names_in_all(labels, task)) - set(names_in_all(history, task)))


def label_of(cell: Any, config: CampaignConfig, where: str) -> str:
    """A cell that is not blank as a label: of several classes where the question is, read as answers are. Raises
    InputError, with `where` in front, for what is none."""
    if config.handoff.question.task == "classes":
        return label_text(classes_in(cell, config.named_classes, where))
    return class_of(cell, where)
