"""CVAT: what its server takes, and the XML that it exports."""

import json
from itertools import islice
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.handoff.exchange import Question
from engine.handoff.vendors import cvat
from tests.vendor_files import (
    CLASSES,
    answers,
    assert_no_cut_is_taken,
    batch_of,
    class_names,
    endless_file,
    item_id,
    item_ids,
    people,
    refused,
    written,
)

CLASS, BOXES, MASK = Question("class", CLASSES), Question("boxes", CLASSES), Question("mask", CLASSES)
META = "<version>1.1</version><meta><task><id>1</id><owner><email>a@x.org</email></owner></task></meta>"


def xml(*images: str, meta: str = META) -> str:
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{meta}\n{"".join(images)}</annotations>\n'


def job(number: int, assignee: str = "") -> str:
    """The head of a job's export, as the server writes it (2.80)."""
    who = f"<username>{escape(assignee)}</username>\n<email>a@x.org</email>" if assignee else ""
    segment = f"<segment><id>7</id><start>0</start><url>http://x/api/jobs/{number}</url></segment>"
    owner = "<owner><username>boss</username><email>b@x.org</email></owner>"
    facts = f"<id>{number}</id>\n<size>3</size><segments>{segment}</segments>{owner}<assignee>{who}</assignee>"
    labels = "<labels><label><name>kettle</name><type>tag</type></label></labels>"
    return f"<version>1.1</version><meta>\n<job>{facts}{labels}</job><dumped>2026-11-20</dumped></meta>"


def image(name: str, *shapes: str) -> str:
    return f'<image id="0" name={quoteattr(name)} width="48" height="32">{"".join(shapes)}</image>\n'


def test_the_files_are_those_of_the_server() -> None:
    files = written(cvat, batch_of(annotators=3))
    assert list(files) == ["manifest.jsonl", "task.json", "data.json", "labels.json"]
    lines = files["manifest.jsonl"].decode().splitlines()
    # The server checks the first two lines, and that name, extension and size are there; no line is blank.
    assert [json.loads(line) for line in lines[:2]] == [{"version": "1.1"}, {"type": "images"}]
    assert json.loads(lines[2]) == {"name": f"images/{item_id(0)}", "extension": ".png", "width": 48, "height": 32}
    assert len(lines) == 5
    labels = [{"name": name, "type": "tag", "attributes": []} for name in CLASSES]
    assert json.loads(files["labels.json"]) == labels
    task = {"name": "Vessels-r000-b000", "labels": labels, "segment_size": 100, "consensus_replicas": 3}
    assert json.loads(files["task.json"]) == task
    sources = ["manifest.jsonl", *(f"images/{item_id(number)}.png" for number in range(3))]
    how = {"image_quality": 95, "use_cache": True, "sorting_method": "predefined"}
    assert json.loads(files["data.json"]) == {"server_files": sources, **how}


def test_links_name_objects_of_a_bucket_or_are_fetched() -> None:
    bucket = written(cvat, batch_of(base="s3://bucket/a/b/"))
    assert json.loads(bucket["data.json"])["server_files"][:2] == ["manifest.jsonl", f"a/b/{item_id(0)}.png"]
    assert json.loads(bucket["manifest.jsonl"].splitlines()[2])["name"] == f"a/b/{item_id(0)}"
    fetched = json.loads(written(cvat, batch_of(base="https://x.org/a/"))["data.json"])
    assert fetched["remote_files"][0] == f"https://x.org/a/{item_id(0)}.png"


def test_limits_of_the_server_are_kept_or_named() -> None:
    assert "consensus_replicas" not in json.loads(written(cvat, batch_of())["task.json"])
    many = batch_of(ids=[item_id(number) for number in range(100)], annotators=11)
    many = many._replace(tasks=many.tasks * 500)
    assert json.loads(dict(islice(cvat.write_tasks(many), 2))["task.json"])["segment_size"] == 120
    with pytest.raises(ConfigError, match=r"12 annotators.*at most 11; ask fewer"):
        written(cvat, batch_of(annotators=12))
    with pytest.raises(ConfigError, match=r"64 characters.*shorten"):
        written(cvat, batch_of(classes=["a", "x" * 65]))
    with pytest.raises(ConfigError, match=r"256 characters.*shorten"):
        written(cvat, batch_of()._replace(name="x" * 257))


@given(item_ids, class_names, st.data())
def test_what_annotators_say_comes_back(ids: list[str], classes: list[str], data: st.DataObject) -> None:
    files = written(cvat, batch_of("classes", ids, classes))
    labels = [label["name"] for label in json.loads(files["labels.json"])]
    names = [line["name"] for line in map(json.loads, files["manifest.jsonl"].decode().splitlines()[2:])]
    said = {name: data.draw(st.sets(st.sampled_from(labels))) for name in names}
    tags = {name: [f"<tag label={quoteattr(label)} source='manual'/>" for label in said[name]] for name in names}
    back = answers(
        cvat, xml(*(image(f"{name}.png", *tags[name]) for name in names)), "a.xml", Question("classes", classes)
    )
    assert [answer.item for answer in back] == [f"images/{name}.png" for name in ids]
    assert [answer.value for answer in back] == [sorted(said[name]) or None for name in names]
    assert not any(answer.annotator or answer.fault or answer.skipped for answer in back)


@given(item_ids, st.lists(st.tuples(people, st.sampled_from(CLASSES)), min_size=1, max_size=4, unique=True))
def test_a_job_has_the_answers_of_its_assignee(ids: list[str], said: list[tuple[str, str]]) -> None:
    for number, (person, label) in enumerate(said, 20):
        tag = f"<tag label={quoteattr(label)} source='manual'/>"
        images = [image(f"images/{name}.png", tag) for name in ids]
        back = answers(cvat, xml(*images, meta=job(number, person)), "a.xml", CLASS)
        assert [answer.item for answer in back] == [f"images/{name}.png" for name in ids]
        assert {answer[2:5] for answer in back} == {(label, person, f"job {number}")}
        # Replicas that are assigned to nobody are different people all the same.
        back = answers(cvat, xml(*images, meta=job(number)), "a.xml", CLASS)
        assert {answer[2:5] for answer in back} == {(label, f"job {number}", f"job {number}")}


def test_the_answers_of_a_project_are_final() -> None:
    for part in "task", "project":
        (answer,) = answers(cvat, xml(image("a.png"), meta=job(1, "ann").replace("job>", f"{part}>")), "a.xml", CLASS)
        assert (answer.annotator, answer.answer_id) == ("", "")
    nameless = xml(image("a.png"), meta="<meta><job><segments><segment><id>7</id></segment></segments></job></meta>")
    assert "a <job> without an <id>" in refused(cvat, nameless, "a.xml", CLASS)


def test_shapes_are_in_pixels() -> None:
    box = '<box label="kettle" xtl="3.00" ytl="2.00" xbr="23.50" ybr="20.00" occluded="0"><attribute name="a"/></box>'
    turned = '<box label="kettle" xtl="0" ytl="0" xbr="4" ybr="2" rotation="90.0"/>'
    polygon = '<polygon label="=1+1" points="1.0,2.0;3.0,4.0;5.5,6.0"/>'
    mask = '<mask label="kettle" rle="3, 2, 1" left="1" top="2" width="3" height="2"/>'
    found, empty = answers(cvat, xml(image("p/a.png", box, polygon, turned), image("b.png")), "a.xml", BOXES)
    assert found.value == [
        {"label": "kettle", "box": [3.0, 2.0, 20.5, 18.0]},
        {"label": "=1+1", "polygon": [[1.0, 2.0], [3.0, 4.0], [5.5, 6.0]]},
        {"label": "kettle", "box": [0.0, 0.0, 4.0, 2.0], "rotation": 90.0},
    ]
    assert json.loads(found.raw)[0] | {"type": "box", "occluded": "0"} == json.loads(found.raw)[0]
    assert (empty.value, empty.skipped, empty.raw) == (None, False, "")
    (masked,) = answers(cvat, xml(image("a.png", mask)), "a.xml", MASK)
    assert masked.value == [
        {"label": "kettle", "mask": {"left": 1, "top": 2, "width": 3, "height": 2, "rle": [3, 2, 1]}}
    ]


@pytest.mark.parametrize(
    ("shape", "question", "why"),
    [
        ("<tag label='a'/><tag label='b'/>", CLASS, "several classes, 'a', 'b'; leave one"),
        ("<tag source='manual'/>", CLASS, "'' is no class"),
        ("<ellipse label='a' cx='1' cy='1' rx='1' ry='1'/>", BOXES, "<ellipse> is no box"),
        ("<box label='a' xtl='3' ytl='0' xbr='1' ybr='1'/>", BOXES, "-2.0 by 1.0"),
        ("<box label='a' xtl='nan' ytl='0' xbr='1' ybr='1'/>", BOXES, "no length"),
        ("<box label='a' xtl='0' ytl='0' xbr='1'/>", BOXES, "no 'ybr'"),
        ("<box label='a' xtl='0' ytl='0' xbr='1' ybr='1'/>", MASK, "a box, where masks are asked for"),
        ("<polygon label='a' points='1,2;3,4'/>", BOXES, "less than three"),
        ("<mask label='a' rle='x' left='0' top='0' width='1' height='1'/>", MASK, "invalid literal"),
    ],
)
def test_what_cannot_be_taken_is_a_fault_of_its_image(shape: str, question: Question, why: str) -> None:
    good, bad = answers(cvat, xml(image("a.png"), image("b.png", shape)), "a.xml", question)
    assert not good.fault
    assert (bad.item, bad.value, bad.where) == ("b.png", None, "line 4")
    assert why in bad.fault


def test_other_files_are_refused() -> None:
    assert_no_cut_is_taken(cvat, xml(image("a.png", "<tag label='é'/>"), image("b.png")), "a.xml", CLASS)
    bomb = '<!DOCTYPE a [<!ENTITY a "x"><!ENTITY b "&a;&a;">]><annotations><image name="&b;"/></annotations>'
    assert "DOCTYPE" in refused(cvat, bomb, "a.xml", CLASS)
    assert "CVAT for video" in refused(cvat, "<annotations><track/></annotations>", "a.xml", CLASS)
    assert "<annotation>" in refused(cvat, "<annotation><filename>a.png</filename></annotation>", "a.xml", CLASS)
    assert 'export "CVAT for images 1.1"' in refused(cvat, "a/b 0\n", "default.txt", CLASS)
    for text in (b"{}", b"\x89PNG\r\n", b"<annotations>\xff</annotations>", b"<?xml version='1.0' encoding='no'?><a/>"):
        refused(cvat, text, "a.xml", CLASS)
    latin = "<?xml version='1.0' encoding='latin-1'?>" + xml(image("a.png", "<tag label='é'/>")).partition("?>")[2]
    assert answers(cvat, latin.encode("latin-1"), "a.xml", CLASS)[0].value == "é"


def test_a_file_of_any_length_is_streamed() -> None:
    file = endless_file("a.xml", "<annotations>", lambda n: image(f"{n}.png", '<tag label="kettle"/>'))
    reading = cvat.read_answers(file, CLASS)
    assert [next(reading).item for _ in range(2000)][-1] == "1999.png"


def test_its_files_are_known() -> None:
    assert cvat.is_mine("job_1/annotations.xml", xml(image("a.png")).encode())
    assert cvat.is_mine("default.txt", b"a/b/c 0\nd 1\n")
    assert not cvat.is_mine("labeling_config.xml", b"<View><Image/></View>")
    assert not cvat.is_mine("classes.txt", b"kettle\nteapot 2 b\n")
    assert not any(cvat.is_mine(name, content) for name, content in written(cvat, batch_of()).items())
