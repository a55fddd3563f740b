"""Ground Truth's manifests: within its limits on their way out, and every kind of answer on their way back."""

import itertools
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError, InputError
from engine.handoff.exchange import Answer, Question
from engine.handoff.vendors import ground_truth
from engine.handoff.vendors.ground_truth import is_mine, read_answers, write_tasks
from tests.engine.handoff.vendors.table_batches import IDS, ITEM_IDS, QUESTIONS, VESSELS, outgoing, said
from tests.vendor_files import answer_file, endless_file

NOON = datetime(2026, 11, 20, 12, 0, 0, 5, tzinfo=UTC)
META = {
    "class-name": "kettle", "confidence": 0.83, "type": "groundtruth/image-classification", "human-annotated": "yes",
    "job-name": "labeling-job/b7", "creation-date": "2026-11-20T12:00:00.000005",
}  # fmt: skip
TAGS = {**META, "type": "groundtruth/image-classification-multilabel", "class-map": {"0": "kettle", "2": "jug"}}
TAGS.pop("class-name")
BOXES = {**TAGS, "type": "groundtruth/object-detection", "class-map": {"1": "teapot"}}
BOX = {"class_id": 1, "left": 10, "top": 20, "width": 30, "height": 40}
COLORS = {
    "0": {"class-name": "BACKGROUND", "hex-color": "#ffffff"},
    "1": {"class-name": "jug", "hex-color": "#2ca02c", "confidence": 0.9},
}
TYPES = {"class": META["type"], "classes": TAGS["type"]}


def read(*rows: dict[str, Any], question: Question = VESSELS) -> list[Answer]:
    lines = "".join(json.dumps({"source-ref": "s3://b/a.png", "item-id": "a"} | row) + "\n" for row in rows)
    return list(read_answers(answer_file(lines, "output.manifest"), question))


def test_the_files_of_a_batch() -> None:
    files = dict(write_tasks(outgoing(prefix="s3://b/7/")))
    assert list(files) == ["input.manifest", "label_categories.json"]
    lines = [json.loads(line) for line in files["input.manifest"].splitlines()]
    assert lines[0] == {"source-ref": f"s3://b/7/images/{IDS[0]}.png", "item-id": IDS[0]}
    assert json.loads(files["label_categories.json"]) == {
        "document-version": "2018-11-28", "labels": [{"label": "kettle"}, {"label": "teapot"}, {"label": "jug"}],
    }  # fmt: skip
    assert files == dict(write_tasks(outgoing(prefix="s3://b/7/")))
    local = dict(write_tasks(outgoing()))["input.manifest"]
    assert json.loads(local.splitlines()[0])["source-ref"] == f"images/{IDS[0]}.png"


def test_a_batch_larger_than_a_job_goes_into_several_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ground_truth._MOST_OBJECTS == {"class": 100_000, "classes": 100_000, "boxes": 100_000, "mask": 20_000}
    monkeypatch.setitem(ground_truth._MOST_OBJECTS, "mask", 2)
    files = dict(write_tasks(outgoing(Question("mask", ["kettle"]))))
    assert [files[f"input-00{n}.manifest"].count(b"\n") for n in (1, 2)] == [2, 1]


@pytest.mark.parametrize(
    ("question", "prefix", "message"),
    [
        (Question("class", ["kettle"]), "", "ground-truth needs two classes or more, not 1; set handoff.question"),
        (Question("class", ["k", "x" * 257]), "", "class 'x+'... has 257 characters, ground-truth takes 256; shorten"),
        (VESSELS, "s3://b/" + "x" * 100_000, f"the link of {IDS[0]} has 100,0.. characters; give shorter links"),
        (VESSELS, "https://b.example.org/", "https://b.example.org/images/.*: ground-truth reads S3 alone; give s3://"),
    ],
)
def test_what_ground_truth_does_not_take_is_refused(question: Question, prefix: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list(write_tasks(outgoing(question, prefix=prefix)))


@given(ITEM_IDS, QUESTIONS, st.data())
def test_what_a_job_fills_in_comes_back(ids: list[str], question: Question, data: st.DataObject) -> None:
    files = dict(write_tasks(outgoing(question, ids)))
    names = [label["label"] for label in json.loads(files["label_categories.json"])["labels"]]
    lines, meant = [], []
    for line in files["input.manifest"].splitlines():
        row = json.loads(line)
        chosen = sorted(data.draw(st.sets(st.integers(0, len(names) - 1), min_size=1)))
        if question.task == "class":
            index = data.draw(st.sampled_from([chosen[0], str(chosen[0])]))
            more = {"class-name": names[chosen[0]]} if data.draw(st.booleans()) else {}
            # What the place stands for is known where the batch is.
            value: Any = more.get("class-name", f"#{index}")
            row |= {"x": index, "x-metadata": {"type": TYPES["class"], **more}}
        else:
            value = sorted(names[index] for index in chosen)
            row |= {
                "x": chosen,
                "x-metadata": {"type": TYPES["classes"], "class-map": {str(i): names[i] for i in chosen}},
            }
        meant.append((row["item-id"], value))
        lines.append(json.dumps(row, ensure_ascii=data.draw(st.booleans())))
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    assert said(read_answers(answer_file(end.join(lines) + end, "output.manifest"), question)) == meant


def test_the_answers_of_every_kind_of_job() -> None:
    expected = Answer("line 1", "a", "kettle", answer_id="labeling-job/b7", answered_at=NOON)
    assert read({"vessel": 0, "vessel-metadata": META}) == [expected]
    assert read({"vessel": 0, "vessel-metadata": META, "item-id": None})[0].item == "s3://b/a.png"
    tags = Question("classes", VESSELS.classes)
    assert said(read({"t": [2, 0], "t-metadata": TAGS}, {"t": [], "t-metadata": TAGS}, question=tags)) == [
        ("a", ["jug", "kettle"]), ("a", []),
    ]  # fmt: skip
    shapes = {"annotations": [BOX, {**BOX, "class_id": "2"}], "image_size": [{"width": 100, "height": 90, "depth": 3}]}
    (answer,) = read({"b": shapes, "b-metadata": BOXES}, question=Question("boxes", VESSELS.classes))
    box = [10, 20, 30, 40]
    assert answer.value == json.loads(answer.raw) == [{"label": "teapot", "box": box}, {"label": "#2", "box": box}]
    meta = {**META, "type": "groundtruth/semantic-segmentation", "internal-color-map": COLORS}
    row = {"m-ref": "s3://b/m.png", "m-ref-metadata": meta}
    assert said(read(row, question=Question("mask", ["jug"]))) == [
        ("a", [{"label": "jug", "mask": {"file": "s3://b/m.png", "color": "#2ca02c"}}])
    ]


def test_what_has_no_answer_and_what_failed() -> None:
    failed = {"vessel-metadata": {"retry-count": 1, "failure-reason": "ClientError: x", "job-name": "b7"}}
    waiting, lost = read({}, failed)
    assert read({"vessel": 0, **failed})[0] == lost._replace(where="line 1")
    assert (waiting.value, waiting.skipped, waiting.fault) == (None, False, "")
    assert (lost.value, lost.skipped, lost.reason, lost.fault) == (None, True, "ClientError: x", "")


def test_of_a_chain_of_jobs_the_newest_answer_to_the_question_counts() -> None:
    later = {**META, "class-name": "jug", "creation-date": "2026-11-21T00:00:00", "adjustment-status": "adjusted"}
    checked = {**META, "class-name": "bad", "type": "groundtruth/label-verification", "worker-feedback": []}
    row = {"z": 0, "z-metadata": META, "y": 2, "y-metadata": later, "v": 1, "v-metadata": checked}
    assert said(read(row)) == [("a", "jug")]
    (answer,) = read({"z": 0, "z-metadata": META, "y": 2, "y-metadata": META})
    assert answer.fault == "answers 'z' and 'y' are of the same time; keep one of them"


@pytest.mark.parametrize(
    ("question", "row", "fault"),
    [
        (VESSELS, {"x": "a", "x-metadata": {}}, "class 'a' has no name; put it into label_categories.json"),
        (VESSELS, {"x": 0, "x-metadata": {**META, "creation-date": "soon"}}, "creation-date 'soon' is not an ISO"),
        (VESSELS, {"x": 0, "x-metadata": {**META, "class-name": "a\nb"}}, "label is 'a\\nb', with a line break"),
        (
            Question("classes", []),
            {"x": "0", "x-metadata": TAGS},
            "the answer is '0'; give the manifest of a job for c",
        ),
        (Question("boxes", []), {"x": [1], "x-metadata": BOXES}, "the answer is '[1]'; give the manifest of"),
        (Question("boxes", []), {"x": {"annotations": [7]}, "x-metadata": BOXES}, "a box is '7', and not an object"),
        (
            Question("boxes", []),
            {"x": {"annotations": [{**BOX, "left": None}]}, "x-metadata": BOXES},
            "label: shape 1: box is [None, 20, 30, 40]; ",
        ),
    ],
)
def test_an_object_that_cannot_be_taken_is_a_fault(question: Question, row: dict[str, Any], fault: str) -> None:
    (answer,) = read(row, question=question)
    assert fault in answer.fault


LINE = json.dumps({"source-ref": "s3://b/a.png", "x": 0, "x-metadata": META}) + "\n"


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("o.manifest", LINE + LINE[:40], "line 2: truncated: the file is cut off"),
        ("o.manifest", "", "/in/o.manifest: no rows; give the file that the vendor filled in"),
        (
            "o.manifest",
            '{"item_id": "a", "label": "jug"}\n',
            "line 1: no 'source-ref'; give manifests/output/output.man",
        ),
        ("o.manifest", "[]\n", "line 1: not an object"),
        ("o.manifest", LINE.encode("utf-16"), "UTF-16; save it in UTF-8"),
        ("o.manifest", LINE.encode() + b'{"\xe9": 1}\n', "not valid UTF-8: line 2"),
        ("annotations/worker-response/iteration-1/0/t.json", "{}", "a worker's answer names no image; give manifests/"),
    ],
)
def test_a_file_that_is_no_output_manifest_is_refused(path: str, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(read_answers(answer_file(content, path), VESSELS))


def test_the_manifest_of_another_kind_of_job_is_refused() -> None:
    with pytest.raises(InputError, match=r"answers of '.*-multilabel'; give the manifest of a '.*classification' job"):
        read({"x": [0], "x-metadata": TAGS})


def test_the_first_answer_of_an_endless_manifest_is_there_at_once() -> None:
    answers = read_answers(endless_file("o.manifest", "", LINE), VESSELS)
    assert said(itertools.islice(answers, 2)) == [("s3://b/a.png", "kettle")] * 2


@pytest.mark.parametrize(
    ("path", "head", "mine"),
    [
        ("b/output.manifest", LINE, True), ("a.jsonl", LINE, True), ("a.manifest", '{"version":"1.1"}\n', False),
        ("worker-response/iteration-1/0/t.json", '{"answers": [{"workerId": "w"}]}', False), ("a.txt", LINE, False),
    ],
)  # fmt: skip
def test_a_manifest_is_known_by_its_first_line(path: str, head: str, mine: bool) -> None:
    assert is_mine(path, head.encode()) == mine
