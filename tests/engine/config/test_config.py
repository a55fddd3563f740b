"""Law 10: an unknown option is an error; that every option has an effect is shown in test_effects.py."""

import re
import shlex
import tomllib

import pytest

from engine.config import options as config
from engine.config.options import CampaignConfig
from engine.config.section import Section
from engine.config.texts import parse_settings, some
from engine.config.toml import override, parse_config, to_toml
from engine.errors import ConfigError
from vaal.diversity.facility import MOST_PICKS


def test_every_option_is_documented() -> None:
    for option, field in config.fields().items():
        assert field.description, option
        assert config.changes_results(option) in (True, False)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.epochss=3", r"--set: train.epochss: unknown key; did you mean train.epochs\?"),
        ("nonsense=1", "--set: nonsense: unknown key"),
        ("train.epochs=many", "train.epochs='many': not a whole number"),
        ("train.epochs=0", "train.epochs=0: must be at least 1"),
        ("train.epochs=1.5", "train.epochs=1.5: not a whole number"),
        ("train.beta=nan", "train.beta=nan: not a finite number"),
        ("train.preset=huge", "train.preset='huge': give 'small', 'base', 'large' or 'paper'"),
        ("train.workers=9", "train.workers=9 is more than the 8 that train.batch_size=64 can be split over; raise"),
        ("train.min_workers=2", "train.min_workers=2 is more than train.workers=1"),
        (
            "train.gradient_accumulation=65",
            "train.gradient_accumulation=65 is more than the 64 images of a batch that a worker",
        ),
        ("train.offload=optimizer", "train.offload=optimizer needs train.zero_stage=1 or more"),
        ("score.workers=0", "score.workers=0: must be at least 1, or give 'auto'"),
        ("select.stratify=source", "select.stratify=source needs pool.metadata, the file with that column"),
        (
            "select.diversity=magic",
            "select.diversity='magic': give 'auto', 'completion', 'none', ",
        ),
        ("select.oversample=0.5", "select.oversample=0.5: must be at least 1"),
        ("pool.embeddings=member:", "pool.embeddings=member: needs the suffix of the files, for example member:npy"),
        ("train.input=embeddings", "train.input=embeddings needs pool.embeddings or encoder.model"),
        ("train.input=vectors", "train.input='vectors': give 'auto', 'pixels' or 'embeddings'"),
        ("encoder.model=torchvision", "encoder.model=torchvision: give package.module:factory"),
        ("encoder.std=[1.0]", "encoder.std has 1 numbers, encoder.mean 3; give as many"),
        ("encoder.std=[1.0, 0.0, 1.0]", r"encoder.std=0.0: must be more than 0"),
        ("encoder.size=1", "encoder.size=1: must be at least 4"),
        ('score.acquisition=["margn"]', r"score.acquisition='margn': .* or 'random'; did you mean margin\?"),
        ("train=3", "train: unknown key; did you mean train."),
        ("train={epochs=3}", "train: unknown key; did you mean train."),
        ("device.kind=1", "device.kind: unknown key"),
        ("salt=xyz", "salt='xyz': must match "),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_the_key(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        override(CampaignConfig(), parse_settings([setting]), "--set")
    assert "\n" not in str(caught.value)


def test_a_setting_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--set train.epochs: give it a value: --set train.epochs=VALUE"):
        parse_settings(["train.epochs"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepoch = 3", r"c.toml: train.epoch: unknown key; did you mean train.epochs\?"),
        ("[train\n", "c.toml: damaged, not valid TOML"),
        ('[train]\nepochs = "3"', "c.toml: train.epochs='3': not a whole number"),
        ("[train]\nepochs = 0\nfolds = 0", r"train.epochs=0: .*; train.folds=0: "),
    ],
)
def test_a_wrong_file_is_one_line_that_names_file_and_key(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config(text.encode(), "c.toml")
    assert len(str(caught.value).splitlines()) == 1


def test_values_are_toml_or_plain_words() -> None:
    assert parse_settings(["a=3", "b=0.5", "c=true", 'd=["x"]', "e=base", "f=s3://bucket/x", "g="]) == {
        "a": 3, "b": 0.5, "c": True, "d": ["x"], "e": "base", "f": "s3://bucket/x", "g": "",
    }  # fmt: skip


def test_the_written_file_is_the_configuration() -> None:
    changed = override(CampaignConfig(), parse_settings(["train.beta=0.25", "pool.shards=['a \"b\".tar']"]), "test")
    text = to_toml(changed)
    assert parse_config(text.encode(), "again") == changed
    assert "# Weight of the KL term (Eq. 1 of arXiv 1904.00370).\n# >= 0. Changes results.\nbeta = 0.25\n" in text
    assert set(tomllib.loads(text)) == {"format", *CampaignConfig.model_fields}


@pytest.mark.parametrize("preset", ["small", "base", "large"])
def test_declared_defaults_are_the_effective_ones(preset: str) -> None:
    values = override(CampaignConfig(), {"train.preset": preset}, "test").model_dump()
    for key, field in config.fields().items():
        section, _, name = key.rpartition(".")
        found = values[section][name] if section else values[name]
        default = field.default.model_dump() if isinstance(field.default, Section) else field.default
        assert found == (preset if key == "train.preset" else default), key


def test_a_preset_brings_its_settings_but_not_over_what_is_given() -> None:
    paper = override(CampaignConfig(), {"train.preset": "paper"}, "test").train
    assert (paper.batch_size, paper.vae_steps, paper.discriminator_steps, paper.folds) == (128, 2, 1, 1)
    assert (paper.learning_rate, paper.beta, paper.adversarial_weight) == (5e-4, 1.0, 1.0)
    given = override(CampaignConfig(), {"train.preset": "paper", "train.batch_size": 32}, "test").train
    assert (given.batch_size, given.vae_steps) == (32, 2)
    kept = override(override(CampaignConfig(), {"train.batch_size": 32}, "t"), {"train.preset": "paper"}, "t").train
    assert (kept.batch_size, kept.vae_steps) == (32, 2)
    assert parse_config(b'[train]\npreset = "paper"\nfolds = 4\n', "f").train.folds == 4
    assert parse_config(b'[train]\npreset = "paper"\n', "f").train.batch_size == 128
    back = override(override(CampaignConfig(), {"train.preset": "paper"}, "t"), {"train.preset": "small"}, "t")
    assert back == CampaignConfig()


def test_the_papers_networks_come_with_their_limits() -> None:
    for values, message in (
        ({"image.size": 40}, "image.size=40: train.preset=paper needs a multiple of 16 from 32 on"),
        ({"train.workers": 2}, "train.preset=paper needs train.workers=1"),
        ({"train.method": "features"}, "train.preset=paper has no network for train.method=features"),
    ):
        with pytest.raises(ConfigError, match=message):
            override(CampaignConfig(), {"train.preset": "paper", **values}, "test")


def test_facility_location_is_for_as_many_picks_as_it_can_do() -> None:
    settings = {"select.diversity": "facility", "select.budget": MOST_PICKS}
    assert override(CampaignConfig(), settings, "--set").select.budget == MOST_PICKS
    with pytest.raises(ConfigError, match=r"select.diversity=facility is for select.budget up to 2500; use clusters"):
        override(CampaignConfig(), {**settings, "select.budget": MOST_PICKS + 1}, "--set")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["pool.embeddings=a.parquet", "encoder.model=a:b"], "encoder.model=a:b: there is pool.embeddings already"),
        (["encoder.model=a:b", "image.channels=1"], "encoder.mean has 3 numbers, image.channels=1; give one for each"),
        (["pool.embeddings=member:npy", "train.preset=paper"], "train.preset=paper is a network on pixels; set train"),
        (
            ["encoder.order=bgr", "encoder.mean=[0.5]", "encoder.std=[0.5]"],
            "encoder.order=bgr is for 3 channels, encoder.mean has 1 numbers",
        ),
    ],
)
def test_settings_of_embeddings_that_contradict_one_another_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(CampaignConfig(), parse_settings(settings), "--set")


def test_networks_see_embeddings_where_there_are_some_unless_told_otherwise() -> None:
    with_some = override(CampaignConfig(), {"pool.embeddings": "member:npy"}, "--set")
    assert [config.sees_embeddings for config in (CampaignConfig(), with_some)] == [False, True]
    assert not override(with_some, {"train.input": "pixels"}, "--set").sees_embeddings
    encoder = {"encoder.model": "a:b", "encoder.arguments": {"name": "x", "depth": 3}}
    with_encoder = override(CampaignConfig(), encoder, "--set")
    assert with_encoder.sees_embeddings
    assert parse_config(to_toml(with_encoder).encode(), "test") == with_encoder


def test_every_option_stands_below_its_explanation() -> None:
    line_by_line = to_toml(override(CampaignConfig(), {"encoder.arguments": {"depth": 3}}, "test")).splitlines()
    section, found = "", dict[str, str]()
    for above, line in zip(["", *line_by_line], line_by_line, strict=False):
        if line.startswith("["):
            section = line.strip("[]") + "."
        elif " = " in line and not line.startswith("#"):
            found[section + line.partition(" = ")[0]] = above
    found.pop("format")
    assert {*found} == {*config.fields()}
    for option, above in found.items():
        assert re.fullmatch(r"# .*(Changes|Does not change) results\.", above), option


def test_a_key_inside_of_a_table_is_set_and_named() -> None:
    made = override(CampaignConfig(), parse_settings(["handoff.question.task=boxes", "labels.close_when=1"]), "test")
    assert made.handoff.question.task == "boxes"
    again = override(made, parse_settings(["handoff.question.classes=['a']"]), "test")
    assert (again.handoff.question.task, again.handoff.question.classes) == ("boxes", ["a"])
    assert parse_config(to_toml(again).encode(), "again") == again
    for setting, words in (
        ("handoff.question.taks=boxes", r"handoff.question.taks: unknown key; did you mean handoff.question.task\?"),
        ("handoff.question.task=box", "handoff.question.task='box': give 'class'"),
        ("handoff.question.classes=['a','a']", "name each class once"),
        ("handoff.question=5", "handoff.question=5: not a table"),
    ):
        with pytest.raises(ConfigError, match=words):
            override(CampaignConfig(), parse_settings([setting]), "test")


@pytest.mark.parametrize(
    ("setting", "message", "form"),
    [
        ("handoff.question.classes=cat,dog", "not a list", """--set 'handoff.question.classes=["cat","dog"]'"""),
        ("labels.classes=[cat, it's]", "not a list", """--set 'labels.classes=["cat","it'"'"'s"]'"""),
        ("labels.void=11", "not a list", "--set 'labels.void=[11]'"),
        ("labels.classes=7", "not a list", """--set 'labels.classes=["7"]'"""),
        ("score.acquisition=vaal", "not a list", """--set 'score.acquisition=["vaal"]'"""),
        ("image.suffixes=jpg,png", "not a list", """--set 'image.suffixes=["jpg","png"]'"""),
        ("encoder.mean=0.5,0.5,0.25", "not a list", "--set 'encoder.mean=[0.5,0.5,0.25]'"),
        ("encoder.mean=half", "not a list", "--set 'encoder.mean=[0.5]'"),
        ("pool.shards=a.tar", "not a list", """--set 'pool.shards=["a.tar"]'"""),
        ("labels.classes=[0, 1]", "in a list, put each text in quotes", ""),
    ],
)
def test_a_wrong_list_is_shown_as_it_is_written(setting: str, message: str, form: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override(CampaignConfig(), parse_settings([setting]), "--set")
    text = str(caught.value)
    assert message in text
    assert text.endswith(form)
    if form and "mean" not in setting:
        _, shown = shlex.split(form)
        override(CampaignConfig(), parse_settings([shown]), "--set")


def test_of_many_names_the_first_are_shown() -> None:
    assert some(["a"]) == "a"
    assert some("abc") == "a, b, c"
    assert some(f"labels/{n}" for n in range(17)) == "labels/0, labels/1, labels/2 and 14 more"


@pytest.mark.parametrize(
    ("task", "asked", "has_task"),
    [("classification", "class", True), ("labels", "classes", True), ("segmentation", "mask", True),
     ("auto", "class", False), ("auto", "classes", False), ("none", "classes", False)],
)  # fmt: skip
def test_a_task_learner_learns_what_is_asked_for(task: str, asked: str, has_task: bool) -> None:
    settings = {"train.task": task, "handoff.question": {"task": asked, "classes": ["a", "b"]}}
    assert override(CampaignConfig(), settings, "test").has_task is has_task


@pytest.mark.parametrize(
    ("task", "asked", "fix"),
    [("classification", "classes", "class"), ("labels", "class", "classes"), ("segmentation", "boxes", "mask")],
)
def test_a_task_learner_of_other_labels_is_refused_with_the_fix(task: str, asked: str, fix: str) -> None:
    question = "handoff.question.task="
    words = f"train.task={task} does not learn from answers of {question}{asked}; --set {question}{fix}"
    with pytest.raises(ConfigError, match=words):
        override(CampaignConfig(), {"train.task": task, "handoff.question.task": asked}, "test")
