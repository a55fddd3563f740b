"""Labels of several classes are read alike wherever they come from: first labels, answers and corrections."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.campaign.corrections import set_label
from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_values
from engine.errors import InputError
from engine.handoff.export import export
from engine.handoff.question import question_of
from engine.models.task_answers import answers_of
from engine.simulation.demo_pools import DemoPool
from tests.conftest import MakeCampaign
from tests.small import copied, make_small

CELLS = ["even|large", '["large", "even"]', "odd", "[]", "3.0|odd"]
LABELS = ['["even", "large"]', '["even", "large"]', '["odd"]', "[]", '["3", "odd"]']
SEVERAL = "handoff.question.task=classes"


@pytest.fixture
def rows(pool: DemoPool) -> list[dict[str, object]]:
    return [{"shard": s, "key": k, "label": c} for (s, k), c in zip(sorted(pool.oracle)[:5], CELLS, strict=True)]


def written(folder: Path, rows: list[dict[str, object]], cells: list[object] | None = None) -> Path:
    lines = [json.dumps({**row, "label": c}) for row, c in zip(rows, cells or CELLS, strict=False)]
    (folder / "l.jsonl").write_text("\n".join(lines))
    return folder / "l.jsonl"


def test_first_labels_of_several_classes_are_read_as_answers_are(
    make_campaign: MakeCampaign, tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    lists = [{**row, "label": json.loads(label)} for row, label in zip(rows, LABELS, strict=True)]
    files = [tmp_path / "l.parquet", written(tmp_path, lists, [row["label"] for row in lists]), tmp_path / "l.csv"]
    pq.write_table(pa.Table.from_pylist(rows), files[0])
    lines = [f'{row["shard"]},{row["key"]},"{str(row["label"]).replace(chr(34), 2 * chr(34))}"' for row in rows]
    files[2].write_text("\n".join(["shard,key,label", *lines]) + "\n")
    for file in files:
        campaign = make_campaign(SEVERAL, name=f"of-{file.suffix}", labels=file)
        values = labelled_values(campaign.home)
        assert [values[str(row["shard"]), str(row["key"])] for row in rows] == LABELS
        assert answers_of("labels", list(values.values())).classes == ["3", "even", "large", "odd"]
        # So are corrections.
        item = (str(rows[2]["shard"]), str(rows[2]["key"]))
        said: list[str] = []
        set_label(campaign, item, "odd|new", said.append)
        assert labelled_values(campaign.home)[item] == '["new", "odd"]'
        assert said[1:] == ["new class, never seen in this campaign before: new"]
    # A class may have | in it, and one class an image is one class.
    named = make_campaign(SEVERAL, 'labels.classes=["even|large", "odd", "3", "even", "large"]', labels=files[0])
    assert sorted(labelled_values(named.home).values())[2] == '["even|large"]'
    plain = make_campaign(name="plain", labels=files[0])
    assert "even|large" in labelled_values(plain.home).values()


def test_an_image_without_any_class_is_said_with_an_empty_list(
    make_campaign: MakeCampaign, tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    words = r"line 1: item .* has an empty label; remove the row, or write \[\] for an image without any class$"
    with pytest.raises(InputError, match=words):
        make_campaign(SEVERAL, labels=written(tmp_path, rows, [""]))
    with pytest.raises(InputError, match=r"has an empty label; remove the row$"):
        make_campaign(labels=written(tmp_path, rows, [""]))
    with pytest.raises(InputError, match=r"line 1: item .*: label has an empty class; take it out"):
        make_campaign(SEVERAL, labels=written(tmp_path, rows, ["a||b"]))
    with pytest.raises(InputError, match=r"label 'odd' is not one of labels.classes; labels.classes has even"):
        make_campaign(SEVERAL, 'labels.classes=["even"]', labels=written(tmp_path, rows, ["even|odd"]))


def test_a_question_of_several_classes_has_those_of_the_labels(
    make_campaign: MakeCampaign, tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    file = written(tmp_path, rows)
    campaign = make_campaign(SEVERAL, labels=file)
    assert question_of(campaign).classes == ["3", "even", "large", "odd"]
    assert question_of(campaign).is_open
    closed = make_campaign(SEVERAL, "labels.classes=from-init", name="closed", labels=file)
    assert question_of(closed).classes == ["3", "even", "large", "odd"]
    assert not question_of(closed).is_open
    assert question_of(make_campaign("handoff.question.task=boxes", name="boxes", labels=file)).classes == []


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    names = ("cat|dog", "dog|owl")
    return make_small(tmp_path_factory.mktemp("several"), names=names, handoff__question__task="classes")


def test_its_classes_go_out_and_gold_images_fit_it(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "open")
    export(campaign)
    question = json.loads((campaign.stage("handoff/generic") / "question.json").read_bytes())
    assert question["classes"] == ["cat", "dog", "owl"]
    export(copied(base, tmp_path / "studio"), vendor="label-studio")
    named = {"handoff__question__classes": ["cat", "dog"], "handoff__gold_fraction": 0.5}
    manifest = export(copied(base, tmp_path / "named", **named))
    # Three of the six labels have owl in them, which nobody can answer.
    assert manifest["counts"]["gold"] == 3
