"""Curves of an experiment that --set changed name their file, and the command that made them."""

import shlex
from typing import Any

import pytest

from engine.config.texts import parse_settings
from engine.simulation.simulate import CURVES_SCHEMA
from engine.simulation.variants import Variant, put_settings, variant_of


@pytest.mark.parametrize(
    ("settings", "stem", "words"),
    [
        ({}, "a", ""),
        ({"x": True}, "a@x=true", "--set x=true"),
        ({"y.z": -1, "x": [0.5, 0.9]}, "a@x=0.5-0.9-4c3d82,y.z=-1", "--set y.z=-1 --set 'x=[0.5,0.9]'"),
        ({"pool.shards": "s3://b/c d.tar"}, "a@pool.shards=s3-b-c-d.tar-867564", "--set 'pool.shards=s3://b/c d.tar'"),
        ({"x": "a, b=c"}, "a@x=a-b-c-00081c", "--set 'x=a, b=c'"),
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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([["a", "b"], ["c", "d"]], [["a"], ["b", "c", "d"]]),
        (["small", "linear"], ["small-linear"]),
        ("a b", "a-b"),
        ("x" * 300, "x" * 301),
    ],
)
def test_two_variants_have_two_names_that_file_systems_take(one: Any, other: Any) -> None:
    stems = {Variant("a.toml", {"tasks": value}).stem for value in (one, other)}
    assert len(stems) == 2
    assert all(len(stem.encode()) < 100 for stem in stems)


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({"pool.copies": 0}, {"pool": {"copies": 0}, "first_labels": {"kind": "biased", "missing": 2}}),
        ({"first_labels.kind": "none"}, {"pool": {"copies": 3, "copy_noise": 0.5}, "first_labels": {"kind": "none"}}),
        ({"first_labels.kind": "none", "first_labels": 3}, {"first_labels": 3}),
        ({"pool.copies": 0, "pool": 3}, {"pool": 3}),
        ({"pool.copies": 0, "pool.copy_noise": 0.1}, {"pool": {"copies": 0, "copy_noise": 0.1}}),
    ],
)
def test_settings_take_out_what_has_no_use_then(settings: dict[str, Any], left: dict[str, Any]) -> None:
    tree: dict[str, Any] = {
        "pool": {"copies": 3, "copy_noise": 0.5},
        "first_labels": {"kind": "biased", "missing": 2},
    }
    put_settings(tree, settings, "a.toml")
    assert {**tree, **left} == tree
