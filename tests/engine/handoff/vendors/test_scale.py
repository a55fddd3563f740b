"""Scale: the requests that go out, and every response of the tasks."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError, InputError
from engine.handoff.exchange import Answer, Outgoing, Question
from engine.handoff.vendors import scale
from engine.handoff.vendors.scale import is_mine, read_answers, write_tasks
from tests.json_answers import CLASS_NAMES, ITEM_IDS, require_refused
from tests.vendor_files import answer_file, endless_file, outgoing

QUESTION = Question("class", ["kettle", "teapot", "jug"], "Which vessel?")
A, B = "a" * 32, "b" * 32


def category(*responses: Any, name: str = "class") -> dict[str, Any]:
    return {name: {"type": "category", "field_id": name, "response": list(responses)}}


def task(item_id: str, annotations: Any = None, **other: Any) -> dict[str, Any]:
    return {
        "task_id": f"task-{item_id[:1]}",
        "type": "textcollection",
        "status": "completed",
        "unique_id": item_id,
        "metadata": {"item_id": item_id},
        "completed_at": "2026-11-20T10:00:06.000Z",
        "response": {"annotations": annotations},
        **other,
    }


def read(*tasks: dict[str, Any], question: Question = QUESTION) -> list[Answer]:
    return list(read_answers(answer_file(json.dumps(tasks)), question))


def files_of(batch: Outgoing) -> dict[str, bytes]:
    first = list(write_tasks(batch))
    assert first == list(write_tasks(batch))
    return dict(first)


def requests(batch: Outgoing) -> list[dict[str, Any]]:
    return [json.loads(line) for line in files_of(batch)["tasks.jsonl"].splitlines()]


def test_a_request_a_line() -> None:
    batch = outgoing(QUESTION, [A, B], links="https://img.example.org/h/", annotators=3)
    assert json.loads(files_of(batch)["batch.json"]) == {"project": "", "name": "Vessels-r000-b000"}
    choices = [{"label": name, "value": name} for name in QUESTION.classes]
    field = {
        "type": "category",
        "field_id": "class",
        "title": "Which class does the image show?",
        "required": True,
        "choices": choices,
        "min_choices": 1,
        "max_choices": 1,
    }
    assert requests(batch) == [
        {
            "batch": "Vessels-r000-b000",
            "unique_id": item_id,
            "metadata": {"item_id": item_id},
            "instruction": "Which vessel?",
            "responses_required": 3,
            "attachments": [{"type": "image", "content": f"https://img.example.org/h/{item_id}.png"}],
            "fields": [field],
        }
        for item_id in (A, B)
    ]


def test_many_requests_go_into_several_files(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = outgoing(QUESTION, [f"{n:032x}" for n in range(5)])
    (whole,) = [content for name, content in files_of(batch).items() if name == "tasks.jsonl"]
    monkeypatch.setattr(scale, "_MOST_BYTES", len(whole) // 2)
    files = files_of(batch)
    assert list(files) == ["batch.json", "tasks-001.jsonl", "tasks-002.jsonl", "tasks-003.jsonl"]
    assert b"".join(list(files.values())[1:]) == whole
    assert files_of(batch._replace(tasks=[]))["tasks.jsonl"] == b""


def test_requests_for_the_other_tasks() -> None:
    (several,) = requests(outgoing(QUESTION._replace(task="classes"), [A]))
    assert (several["fields"][0]["min_choices"], several["fields"][0]["max_choices"]) == (0, 3)
    (boxes,) = requests(outgoing(QUESTION._replace(task="boxes"), [A]))
    assert boxes["attachment"] == f"images/{A}.png"
    assert boxes["geometries"]["box"]["objects_to_annotate"] == QUESTION.classes
    (mask,) = requests(outgoing(QUESTION._replace(task="mask"), [A]))
    assert mask["labels"] == QUESTION.classes
    assert "responses_required" not in mask
    with pytest.raises(ConfigError, match="name them"):
        list(write_tasks(outgoing(Question("class", []), [A])))


@given(
    st.lists(ITEM_IDS, min_size=1, max_size=4, unique=True),
    st.lists(CLASS_NAMES, min_size=1, max_size=4, unique=True),
    st.booleans(),
    st.data(),
)
def test_answers_come_back_as_they_were_given(ids: list[str], classes: list[str], in_lines: bool, data: Any) -> None:
    question = Question("class", classes)
    sent = requests(outgoing(question, ids, annotators=2))
    values = [choice["value"] for choice in sent[0]["fields"][0]["choices"]]
    two = st.lists(st.sampled_from(values), min_size=2, max_size=2)
    chosen = data.draw(st.lists(two, min_size=len(ids), max_size=len(ids)))
    done = [
        {
            **request,
            "task_id": f"t{n}",
            "status": "completed",
            "response": {"annotations": category(*([c] for c in pair))},
        }
        for n, (request, pair) in enumerate(zip(sent, chosen, strict=True))
    ]
    text = "\n".join(map(json.dumps, done)) if in_lines else json.dumps(done, ensure_ascii=False)
    answers = list(read_answers(answer_file(text), question))
    assert [(answer.item, answer.value, answer.answer_id) for answer in answers] == [
        (item_id, name, f"t{n}/{k}")
        for n, (item_id, pair) in enumerate(zip(ids, chosen, strict=True))
        for k, name in enumerate(pair)
    ]


def test_every_response_is_an_answer_of_another_person() -> None:
    answers = read(task(A, category(["kettle"], ["teapot"])), task(B, category(["jug"])))
    when = datetime(2026, 11, 20, 10, 0, 6, tzinfo=UTC)
    assert answers == [
        Answer("record 1", A, "kettle", "task-a/0", "task-a/0", when),
        Answer("record 1", A, "teapot", "task-a/1", "task-a/1", when),
        Answer("record 2", B, "jug", "task-b/0", "task-b/0", when),
    ]


def test_a_list_that_grows_keeps_the_names_of_its_answers() -> None:
    before = read(task(A, category(["kettle"])))
    after = read(task(A, category(["kettle"], ["jug"])))
    assert after[0] == before[0]


@pytest.mark.parametrize(
    ("other", "skipped", "reason"),
    [
        ({"status": "pending"}, False, ""),
        ({"status": "canceled"}, True, "canceled"),
        ({"status": "error"}, True, "error"),
        ({"customer_review_status": "rejected"}, True, "rejected"),
    ],
)
def test_tasks_without_an_answer(other: dict[str, Any], skipped: bool, reason: str) -> None:
    (answer,) = read(task(A, category(["jug"]), **other))
    assert (answer.item, answer.value, answer.skipped, answer.reason, answer.fault) == (A, None, skipped, reason, "")


def test_callbacks_and_other_names() -> None:
    whole = task(A, category(["jug"], name="vessel"))
    callback = {"task_id": whole["task_id"], "response": whole.pop("response"), "task": whole, "extra": 1}
    text = json.dumps(callback, indent=2)
    (answer,) = read_answers(answer_file(text), QUESTION)
    assert (answer.item, answer.value) == (A, "jug")
    (flat,) = read(task(A, category("jug"), metadata=None))
    assert (flat.item, flat.value) == (A, "jug")


def test_several_classes() -> None:
    answers = read(task(A, category(["teapot", "jug"], [])), question=QUESTION._replace(task="classes"))
    assert [answer.value for answer in answers] == [["jug", "teapot"], []]


def test_a_response_that_does_not_answer() -> None:
    bad, good = read(task(A, category(["jug", "kettle"], ["jug"])))
    assert bad.fault == "response task-a/0 has 2 classes, not one; correct it at Scale"
    assert (bad.value, bad.item, good.value, good.fault) == (None, A, "jug", "")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (task(A, category()), "no response"),
        (task(A, {}), "no field 'class' among none"),
        (task(A, {"x": {"type": "text"}, "y": {"type": "text"}}), "no field 'class' among 'x', 'y'"),
        (task(A, status="review"), "the status 'review'"),
        (task("", category(["jug"]), task_id="t"), "no unique_id"),
        (task(A, None), "cannot be read"),
        (task(A, 7), "cannot be read"),
        (task(A, category([["jug"]])), "cannot be read"),
        ({"task_id": "t", "task": 5}, "cannot be read"),
        (task(A, category(["jug"]), completed_at="yesterday"), "yesterday"),
    ],
)
def test_a_record_that_cannot_be_taken_is_one_fault(bad: dict[str, Any], message: str) -> None:
    fault, good = read(bad, task(B, category(["jug"])))
    assert message in fault.fault
    assert ";" in fault.fault
    assert (good.item, good.value) == (B, "jug")


def test_shapes() -> None:
    box = {"type": "box", "label": "kettle", "left": 3, "top": 2, "width": 20, "height": 18.5, "uuid": "u"}
    polygon = {"type": "polygon", "label": "jug", "vertices": [{"x": 0, "y": 1}, {"x": 2, "y": 3}, {"x": 4, "y": 0}]}
    question = QUESTION._replace(task="boxes")
    answer, empty, bad = read(
        task(A, [box, polygon]), task(B, []), task("c" * 32, [{"type": "line", "label": "jug"}]), question=question
    )
    assert answer.value == [
        {"label": "kettle", "box": [3, 2, 20, 18.5]},
        {"label": "jug", "polygon": [[0, 1], [2, 3], [4, 0]]},
    ]
    assert (json.loads(answer.raw), answer.annotator, answer.answer_id) == ([box, polygon], "", "task-a")
    assert empty.value == []
    assert "an annotation of type 'line'" in bad.fault
    (text,) = read(task(A, [{**box, "left": "3"}]), question=question)
    assert "'3' is no length in pixels" in text.fault


def test_masks() -> None:
    response = {
        "annotations": {"combined": {"indexedImage": "https://x/m.png"}},
        "labelMapping": {"kettle": {"index": 1}, "jug": [{"index": 2}, {"index": 3}]},
    }
    (answer,) = read(task(A, response=response), question=QUESTION._replace(task="mask"))
    image = "https://x/m.png"
    assert answer.value == [
        {"label": name, "mask": {"indexed_image": image, "index": index}}
        for name, index in (("kettle", 1), ("jug", 2), ("jug", 3))
    ]


def test_files_that_cannot_be_read() -> None:
    tasks = [task(A, category(["kettle"])), task(B, category(["jug"]))]
    require_refused(read_answers, QUESTION, json.dumps(tasks, indent=1))
    require_refused(read_answers, QUESTION, "\n".join(map(json.dumps, tasks)) + "\n", cuts_at_lines=True)


def test_what_looks_like_tasks() -> None:
    assert is_mine("tasks.json", json.dumps([task(A, category(["jug"]))])[:150].encode())
    assert not is_mine("votes.jsonl", b'{"item_id":"a","vendor_task_id":"t0","status":1}')
    for name, content in files_of(outgoing(QUESTION, [A])).items():
        assert not is_mine(name, content)


def test_reads_one_task_at_a_time() -> None:
    record = json.dumps(task(A, category(["jug"])))
    for endless in (endless_file("a.json", "[", f"{record},"), endless_file("a.jsonl", "", f"{record}\n")):
        answers = read_answers(endless, QUESTION)
        assert [next(answers).value for _ in range(1000)] == ["jug"] * 1000


def test_pages_as_the_api_lists_them() -> None:
    tasks = [{"task_id": f"t{n}", "status": "pending", "unique_id": f"{n:032x}"} for n in range(3)]
    page = {"docs": tasks, "total": 3, "limit": 100, "offset": 0, "has_more": False, "next_token": None}
    later = {"total": 3, "docs": tasks, "next_token": "x"}
    for text, number in ((json.dumps(page), 3), (json.dumps(later, indent=1), 3), (f"{json.dumps(page)}\n" * 2, 6)):
        assert len(list(read_answers(answer_file(text), QUESTION))) == number
    with pytest.raises(InputError, match="record 1: not a task of Scale"):
        list(read_answers(answer_file('{"docs": [{"a": 1}]}'), QUESTION))
