"""A table that ends within its last cell gives no class that is only the beginning of one."""

import pytest

from engine.handoff.exchange import Answer, Question
from engine.handoff.vendors import generic, imagefolder, tsv
from tests.vendor_files import answers

OPEN = Question("class", ["dog"], is_open=True)
GENERIC = "item_id,label\n"


def last(text: str, path: str = "a.csv", question: Question = OPEN) -> Answer:
    vendor = imagefolder if path.startswith("metadata") else tsv if path.endswith(".tsv") else generic
    return answers(vendor, text, path, question)[-1]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.csv", f"{GENERIC}a,cattle\nb,cat"),
        ("a.csv", f"{GENERIC}a,cattle\r\nb,cat"),
        ("a.csv", f"{GENERIC}a,cat"),
        ("a.tsv", "INPUT:item_id\tASSIGNMENT:status\tOUTPUT:class\na\tAPPROVED\tcattle\nb\tAPPROVED\tcat"),
        ("metadata.csv", "file_name,label\na.png,cattle\nb.png,cat"),
    ],
)
def test_a_class_that_may_be_cut_off_is_not_taken(path: str, text: str) -> None:
    assert last(text, path).fault.startswith("the file ends here without the end of a line, and 'cat' is a class of no")
    assert last(f"{text}\n", path).fault == ""
    several = Question("classes", [], is_open=True)
    assert last(text, path, several).fault.startswith("the file ends here")
    # The question says what is a class.
    assert last(text, path, Question("class", ["cattle"])).fault == ""


@pytest.mark.parametrize(
    "text",
    [
        f"{GENERIC}a,cat\nb,cattle\nc,cat", f"{GENERIC}a,cattle\nb,dog", f"{GENERIC}a,cattle\nb,",
        "item_id,label,annotator\na,cattle,ann\nb,cat,ann", "label,item_id\ncattle,a\ncat,b",
    ],
)  # fmt: skip
def test_a_last_line_without_an_end_is_taken_where_its_class_is_known_or_whole(text: str) -> None:
    assert last(text).fault == ""
