"""Curves of an experiment that --set changed name their file, and the command that made them."""

import shlex
from typing import Any

import pytest

from engine.config.texts import parse_settings
from engine.simulation.simulate import CURVES_SCHEMA
from engine.simulation.variants import Variant, variant_of


@pytest.mark.parametrize(
    ("settings", "stem", "words"),
    [
        ({}, "a", ""),
        ({"x": True}, "a@x=true", "--set x=true"),
        ({"y.z": -1, "x": [0.5, 0.9]}, "a@x=0.5-0.9,y.z=-1", "--set y.z=-1 --set 'x=[0.5,0.9]'"),
        ({"pool.shards": "s3://b/c d.tar"}, "a@pool.shards=s3-b-c-d.tar", "--set 'pool.shards=s3://b/c d.tar'"),
        ({"x": "a, b=c"}, "a@x=a-b-c", "--set 'x=a, b=c'"),
    ],
)
def test_a_variant_names_its_file_and_its_command(settings: dict[str, Any], stem: str, words: str) -> None:
    found = variant_of(CURVES_SCHEMA.empty_table().replace_schema_metadata(Variant("a.toml", settings).metadata))
    assert found == ("a.toml", settings)
    assert found is not None
    assert (found.stem, found.words) == (stem, words)
    assert parse_settings(shlex.split(words)[1::2]) == found.settings


def test_curves_that_do_not_say_what_made_them() -> None:
    for metadata in (None, {b"experiment": b"digits.toml"}, {b"experiment": b"[1]"}, {b"experiment": b"{}"}):
        assert variant_of(CURVES_SCHEMA.empty_table().replace_schema_metadata(metadata)) is None
