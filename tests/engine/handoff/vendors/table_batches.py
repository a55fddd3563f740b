"""Batches that go out and files that come back, for the tests of vendors whose files are tables."""

from collections.abc import Iterable

from hypothesis import strategies as st

from engine.handoff.exchange import Answer, Outgoing, Question, Task
from engine.tables.values import class_name

IDS = [f"{number:032x}" for number in (0xC3CD54F297BB, 0xB5272D7B5542, 0xA43811DD2213)]
VESSELS = Question("class", ["kettle", "teapot", "jug"], "What is it?")

_TEXTS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=9) | st.text(
    "a\"',;<>&=+-@|[]\\/{}é漢 .0", max_size=9
)
CLASSES = _TEXTS.map(str.strip).filter(lambda text: text != "" and class_name(text) == text)
"""Classes as they are after they were read once."""
ITEM_IDS = st.lists(st.integers(0, 2**128 - 1).map(lambda n: f"{n:032x}"), min_size=1, max_size=5, unique=True)
QUESTIONS = st.builds(
    Question, st.sampled_from(["class", "classes"]), st.lists(CLASSES, min_size=2, max_size=5, unique=True), _TEXTS
)


def tasks_of(ids: Iterable[str], prefix: str = "", prelabel: str = "") -> list[Task]:
    return [
        Task(i, f"images/{i}.png", f"{prefix}images/{i}.png", n, 100 + n, f"{n:064x}", "image/png", 40, 30, prelabel)
        for n, i in enumerate(ids)
    ]


def outgoing(
    question: Question = VESSELS, ids: Iterable[str] = IDS, *, prefix: str = "", prelabel: str = "", annotators: int = 3
) -> Outgoing:
    return Outgoing("batch-7", question, annotators, tasks_of(ids, prefix, prelabel))


def said(answers: Iterable[Answer]) -> list[tuple[str, object]]:
    """Items and values of answers that have no fault."""
    found = list(answers)
    assert not [answer.fault for answer in found if answer.fault]
    return [(answer.item, answer.value) for answer in found]
