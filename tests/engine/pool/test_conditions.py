"""select.where: SQL's comparisons on columns of pool.metadata, its nulls too; anything else is refused in one line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.conditions import columns_in, condition_of, fault_of_condition
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.errors import ConfigError
from engine.pool.metadata import import_metadata, some_meet, which_meet
from engine.storage.location import Location

ROWS = {
    "a.tar": ("cc0", "2019", "2024-01-31", "True", "north 1"),
    "b.tar": ("cc-by", "2021.5", "2024-02-01 13:00", "false", "north_2"),
    "c.tar": ("", "", "", "", ""),
    "e.tar": ("cc-nd", "", "", "", ""),
    "d.tar": ("proprietary", "2030", "2025-01-01T00:00:00+02:00", "true", "it's"),
}
SHARDS = [*ROWS, "without-a-row.tar"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Location:
    folder = tmp_path_factory.mktemp("conditions")
    lines = ["shard,licence,year,taken,ok,the site", *(",".join((shard, *row)) for shard, row in ROWS.items())]
    (folder / "shards.csv").write_text("\n".join(lines))
    import_metadata(Location.of(str(folder)), Location.of(str(folder / "shards.csv")), [*ROWS])
    return Location.of(str(folder))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("licence = 'cc0'", "a"),
        ("licence <> 'cc0'", "bed"),
        ("licence != 'cc0' and licence in ('cc-by', 'x')", "b"),
        ("licence not in ('cc0')", "bed"),
        ("licence is null", "cw"),
        ("licence is not null", "abed"),
        # Null is neither: not (null) is null.
        ("not licence = 'cc0'", "bed"),
        ("licence = 'cc0' or licence is null", "acw"),
        ("not (licence = 'cc0' and year > 2000)", "bed"),
        ("licence = 'cc0' and year is null or year >= 2030", "d"),
        ("licence is null and year < 0 or licence is null", "cw"),
        ("year < 2021.5", "a"),
        ("2021 < year", "bd"),
        ("year between 2019 and 2022", "ab"),
        ("year > -1", "abd"),
        # As texts.
        ("year >= '2021.5'", "bd"),
        ("taken < date '2024-02-02'", "ab"),
        ("taken = date '2024-02-01'", "b"),
        ("taken >= timestamp '2024-12-31 22:00:00' and taken < date '2025-01-01'", "d"),
        ("ok = true", "ad"),
        ("ok <> true", "b"),
        ("\"the site\" like 'north%'", "ab"),
        ("\"the site\" like 'north_2'", "b"),
        ("\"the site\" not like '%1'", "bd"),
        ("\"the site\" = 'it''s'", "d"),
        ("licence = 'cc0' -- a comment", "a"),
    ],
)
def test_a_condition_holds_as_in_sql(home: Location, where: str, expected: str) -> None:
    found = which_meet(home, where, SHARDS)
    assert "".join(shard[0] for shard, meets in zip(SHARDS, found, strict=True) if meets) == expected


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ("licence = cc0", "cc0 is no constant; put a text in single quotes: 'cc0'"),
        ("licence = null", "never holds; ask: licence is null"),
        ("lower(licence) = 'x'", r"'LOWER\(licence\)' is not a column"),
        ("licence in (select 1)", "says more than a comparison .query"),
        ("a in ()", "give a list"),
        ("licence in ('a', 1)", "constants of different kinds"),
        ("a = 1; drop table b", "cannot be read at 'drop'"),
        ("a = ", "cannot be read"),
        ("year", "'year' is no comparison; there are =, <>,"),
        ("taken > date '2024-02-30'", "'2024-02-30' is not a date like 2024-01-31"),
        ("s.licence = 'x'", "has a point"),
        ("(" * 2000 + "a = 1" + ")" * 2000, "cannot be read"),
        (" ", "cannot be read"),
        ("a between symmetric 2 and 1", "says more than a comparison .symmetric"),
        ("a in ('x', 'y') is null", "is not a column"),
        ("a = 'x' collate y", "is not a text, a number"),
        ("a ilike 'x'", "is no comparison"),
        ("a like 'x' escape '!'", "is no comparison"),
        ("a like any ('x')", "is not a text"),
    ],
)
def test_what_is_more_or_less_than_a_comparison_is_refused(where: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=rf"select.where=.*{fault}") as refused:
        override(CampaignConfig(), {"pool.metadata": "x.csv", "select.where": where}, "--set")
    assert "\n" not in str(refused.value)
    assert "write it like: licence in" in str(refused.value)


def test_it_needs_the_file_and_a_column_of_it_and_values_of_its_kind(home: Location) -> None:
    with pytest.raises(ConfigError, match=r"select.where=a = 'b' needs pool.metadata, the file with that column"):
        override(CampaignConfig(), {"select.where": "a = 'b'"}, "--set")
    known = "it has: licence, year, taken, ok, the site; did you mean licence?"
    with pytest.raises(ConfigError, match=f"pool.metadata has no column 'license'; {known}"):
        which_meet(home, "license = 'cc0'", SHARDS)
    with pytest.raises(ConfigError, match=r"select.where=licence > 3: licence: 'cc0' is no number; correct pool.meta"):
        which_meet(home, "licence > 3", SHARDS)
    with pytest.raises(ConfigError, match=r"none of the 6 shards of the pool meets it; correct it, or pick of all"):
        some_meet(home, "year > 2999", SHARDS)


@given(st.text(max_size=40))
def test_any_text_is_a_condition_or_has_a_fault_in_words(text: str) -> None:
    if fault := fault_of_condition(text):
        assert fault.startswith("select.where=")
    else:
        assert [*columns_in(condition_of(text))]


def test_the_shards_of_a_campaign_need_not_be_read_for_it(tmp_path: Path) -> None:
    home = Location.of(str(tmp_path))
    (tmp_path / "s.csv").write_text("shard,x\na.tar,1\n")
    import_metadata(home, Location.of(str(tmp_path / "s.csv")), ["a.tar"])
    assert some_meet(home, "x = 1", ["a.tar", "b.tar"]).tolist() == [True, False]
