"""Law 10: an unknown option is an error, and every option there is has an effect."""

import ast
import tomllib
from pathlib import Path

import pytest

from engine import config
from engine.campaign import to_toml
from engine.config import CampaignConfig, override, parse_config, parse_settings
from engine.errors import ConfigError

ENGINE = Path(__file__).parent.parent.parent / "engine"
OPTIONS = [
    "salt",
    "device",
    "pool.shards",
    "pool.root",
    "image.size",
    "image.channels",
    "image.max_pixels",
    "train.preset",
    "train.epochs",
    "train.max_steps",
    "train.batch_size",
    "train.learning_rate",
    "train.beta",
    "train.transductive_weight",
    "train.adversarial_weight",
    "train.folds",
    "train.workers",
    "train.zero_stage",
    "train.precision",
    "train.checkpoint_seconds",
    "train.seed",
    "score.workers",
    "score.batch_size",
    "score.max_bad_fraction",
    "select.budget",
    "select.when_no_signal",
    "select.seed",
]


def test_the_options_are_these() -> None:
    # A new option is a decision: it is added here, on purpose.
    assert list(config.fields()) == OPTIONS


def test_every_option_is_read_somewhere() -> None:
    read: set[str] = set()
    for path in ENGINE.rglob("*.py"):
        if path.name != "config.py":
            read |= {n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)}
    assert not [option for option in OPTIONS if option.rpartition(".")[2] not in read]


def test_every_option_is_documented() -> None:
    for option, field in config.fields().items():
        assert field.description, option
        assert config.changes_results(option) in (True, False)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.epochss=3", r"--set: train.epochss: unknown key; did you mean train.epochs\?"),
        ("nonsense=1", "--set: nonsense: unknown key"),
        ("train.epochs=many", "train.epochs='many': input should be a valid integer"),
        ("train.epochs=0", "train.epochs=0: input should be greater than or equal to 1"),
        ("train.epochs=1.5", "train.epochs=1.5: input should be a valid integer"),
        ("train.beta=nan", "train.beta=nan: input should be a finite number"),
        ("train.preset=huge", "train.preset='huge': input should be 'small', 'base' or 'large'"),
        ("train.workers=3", "train.batch_size=64 is not a multiple of train.workers=3"),
        ("score.workers=0", "score.workers=0: input should be greater than or equal to 1, or input should be 'auto'"),
        ("train=3", "train=3: input should be a valid dictionary"),
        ("device.kind=1", "device.kind: device is not a section"),
        ("salt=xyz", "salt='xyz': string should match pattern"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_the_key(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        override(CampaignConfig(), parse_settings([setting]), "--set")
    assert "\n" not in str(caught.value)


def test_a_setting_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--set train.epochs: expected key=value"):
        parse_settings(["train.epochs"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepoch = 3", r"c.toml: train.epoch: unknown key; did you mean train.epochs\?"),
        ("[train\n", "c.toml: not valid TOML"),
        ('[train]\nepochs = "3"', "c.toml: train.epochs='3': input should be a valid integer"),
        ("[train]\nepochs = 0\nfolds = 0", r"train.epochs=0: .*; train.folds=0: "),
    ],
)
def test_a_wrong_file_is_one_line_that_names_file_and_key(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config(text, "c.toml")
    assert len(str(caught.value).splitlines()) == 1


def test_values_are_toml_or_plain_words() -> None:
    assert parse_settings(["a=3", "b=0.5", "c=true", 'd=["x"]', "e=base", "f=s3://bucket/x", "g="]) == {
        "a": 3, "b": 0.5, "c": True, "d": ["x"], "e": "base", "f": "s3://bucket/x", "g": "",
    }  # fmt: skip


def test_the_written_file_is_the_configuration() -> None:
    changed = override(CampaignConfig(), parse_settings(["train.beta=0.25", "pool.shards=['a \"b\".tar']"]), "test")
    text = to_toml(changed)
    assert parse_config(text, "again") == changed
    assert "# Weight of the KL term (Eq. 1 of arXiv 1904.00370).\n# >= 0. Changes results.\nbeta = 0.25\n" in text
    assert set(tomllib.loads(text)) == set(CampaignConfig.model_fields)
