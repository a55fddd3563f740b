"""What a node is asked, and what is said of one that cannot do the work."""

from pathlib import Path

import pytest

from engine.campaign.workers import need_of
from engine.cluster.reach import Answer, Need, _answer, _faults, code_mark, mark_of, require_reach
from engine.errors import InputError
from tests.conftest import MakeCampaign


def faults(here: Answer, there: Answer, need: Need) -> list[str]:
    return list(_faults("10.0.0.7", here, there, need))


def test_a_mark_tells_files_apart(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"a" * 100_000 + b"b")
    two.write_bytes(b"a" * 100_000 + b"bb")
    assert mark_of(str(one)) != mark_of(str(two))
    two.write_bytes(one.read_bytes())
    assert mark_of(str(one)) == mark_of(str(two))
    two.write_bytes(b"b" + one.read_bytes()[1:])
    assert mark_of(str(one)) != mark_of(str(two))
    (tmp_path / "folder").mkdir()
    assert (mark_of(str(tmp_path)), mark_of(f"{tmp_path}/folder")) == ("folder", "empty folder")
    with pytest.raises(InputError, match="absent: no such file or folder"):
        mark_of(f"{tmp_path}/absent")


def test_a_node_that_has_what_this_machine_has_has_no_fault(tmp_path: Path) -> None:
    (tmp_path / "campaign.toml").write_text("a")
    need = Need(str(tmp_path), (f"{tmp_path}/absent",), ("json", "no.such.module"))
    here = _answer(need)
    assert here.lacks == ("no.such.module",)
    # What this machine lacks too, the stage that needs it reports.
    assert faults(here, here, need) == []


def test_each_fault_names_the_node_the_place_and_the_fix(tmp_path: Path) -> None:
    local, remote = str(tmp_path), "s3://bucket/pool/a.tar"
    need = Need(local, (remote,), ("mine",))
    here = Answer({local: "1", remote: "2"}, {}, can_write=True, lacks=(), code=code_mark(), free_bytes=1)
    assert faults(here, here, need) == []
    there = here._replace(marks={}, faults={local: "gone", remote: "ACCESS_DENIED"})
    assert faults(here, there, need) == [
        f"{local} is on this machine's disk, and node 10.0.0.7 does not have it; use s3://, gs:// or a shared mount",
        f"{remote}: this machine can read it, and node 10.0.0.7 cannot: ACCESS_DENIED; give it the same credentials: a "
        "role, or AWS_* variables or a profile where ray start runs",
    ]
    for changed, words in (
        ({"marks": {local: "other", remote: "2"}}, f"{local} is another one on node 10.0.0.7"),
        ({"can_write": False}, f"{tmp_path}: node 10.0.0.7 cannot write there"),
        ({"lacks": ("mine",)}, "node 10.0.0.7 does not have the module mine"),
        ({"code": "other"}, "node 10.0.0.7 has other code of vaal"),
    ):
        (line,) = faults(here, here._replace(**changed), need)
        assert line.startswith(words)


def test_a_private_ray_is_not_asked() -> None:
    require_reach(Need("/nowhere"), "local")


def test_workers_need_the_campaign_its_pool_and_what_its_options_name(
    make_campaign: MakeCampaign, tmp_path: Path
) -> None:
    plain = make_campaign()
    need = need_of(plain)
    assert [Path(place).name for place in need.reads] == ["digits-00000.tar", "digits-00007.tar"]
    assert (need.campaign, need.modules) == (plain.home.url, ())
    assert need.places[plain.home.url] == f"{plain.home}/campaign.toml"
    weights, vectors = tmp_path / "w.safetensors", tmp_path / "vectors"
    weights.write_bytes(b"w")
    vectors.mkdir()
    (vectors / "a.parquet").write_bytes(b"v")
    options = plain.config.model_dump()
    options["pool"]["embeddings"] = f"{vectors}/*.{{parquet,pq}}"
    options["task"] |= {"weights": [str(weights), f"{tmp_path}/absent"]}
    config = type(plain.config).model_validate(options)
    # Files that do not exist are named all the same: what lacks here too is no fault of a node.
    found = need_of(type(plain)(plain.home, config, 0)).reads
    assert {f"{vectors}/a.parquet", str(weights)} < {*found}
