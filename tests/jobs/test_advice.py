"""Advice about labels, followed to the letter: it is whole, it works, and nothing labelled goes out."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_values
from engine.campaign.opening import current_round
from engine.handoff.export import export
from engine.selection.select import select
from jobs.cli import app
from tests.conftest import MakeCampaign
from tests.engine.selection.test_reselection import identities, picks, scored  # noqa: F401


def refused(*words: str) -> str:
    """The error of a command that is refused."""
    found = CliRunner().invoke(app, list(words))
    assert found.exit_code in (2, 4), (found.stdout, found.stderr)
    return found.stderr.strip()


def done(*words: str) -> None:
    found = CliRunner().invoke(app, list(words))
    assert found.exit_code == 0, found.stderr


def advised(error: str) -> list[str]:
    """The words of the one command that an error advises."""
    (command,) = re.findall(r"vaal ((?:[\w/.-]+ ?)+)", error)
    words: list[str] = command.split()
    return words


def test_an_empty_label_is_taken_away_by_the_command_that_the_error_names(make_campaign: MakeCampaign) -> None:
    home = make_campaign().home
    item = min(labelled_values(home))
    done(*advised(refused("labels", str(home), "set", *item, " ")))
    assert item not in labelled_values(home)


def test_a_class_that_is_not_listed_is_listed_as_the_error_says(scored: Campaign, tmp_path: Path) -> None:  # noqa: F811
    select(scored)
    export(scored)
    table = (scored.stage("handed_out/generic-000") / "images.parquet").read_table()
    file = tmp_path / "answers.csv"
    file.write_text(f"item_id,label\n{table['item_id'][0]},owl\n")
    home = str(scored.home)
    error = refused("ingest", home, str(file), "--set", "labels.classes=from-init")
    (setting,) = re.findall(r"; to allow .*, too: (--set .*)$", error)
    done("ingest", home, str(file), *shlex.split(setting))
    # It holds for corrections too, and is allowed by a command that does nothing else.
    for named in ("labels.classes", "handoff.question.classes"):
        done("handoff", home, "--set", f"{named}=['owl', 'airplane']")
        words = ("labels", home, "set", *min(identities(table)))
        assert f"label 'airplan' is not one of {named}; did you mean 'airplane'?" in refused(*words, "airplan")
        assert "did you mean 'owl'?" in refused(*words, "Owl")
        error = refused(*words, "e mu's")
        assert f"{named} has owl, airplane; to allow " in error
        done(*shlex.split(error.partition(", too: vaal ")[2]))
        done(*words, "e mu's")


def test_no_one_is_told_to_remove_a_label_file_of_the_campaigns_own(scored: Campaign) -> None:  # noqa: F811
    """What it holds would be picked, and sent."""
    file = Path(scored.home.path, "labels/initial.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    error = refused("select", str(scored.home))
    assert "restore it from a copy" in error
    assert "remove" not in error
    file.write_bytes(whole)
    foreign = file.with_name("other.parquet")
    foreign.write_bytes(whole[:-9])
    assert "other.parquet" in (error := refused("select", str(scored.home)))
    assert error.endswith("restore it from a copy, or remove it")
    foreign.unlink()
    select(scored)
    assert not picks(scored) & labelled_values(scored.home).keys()


@pytest.mark.parametrize("is_ingest", [True, False])
def test_labels_do_not_end_a_round_whose_new_selection_is_not_out(
    scored: Campaign,  # noqa: F811
    tmp_path: Path,
    is_ingest: bool,
) -> None:
    select(scored)
    export(scored)
    out, file = picks(scored), tmp_path / "answers.csv"
    images = (scored.stage("handed_out/generic-000") / "images.parquet").read_table()
    file.write_text(f"item_id,label\n{images['item_id'][0]},1\n")
    home, item = str(scored.home), (images["shard"][0].as_py(), images["key"][0].as_py())
    select(scored, force=True)
    command = ["ingest", home, str(file)] if is_ingest else ["labels", home, "set", *item, "1"]
    done(*command)
    assert current_round(scored.home) == 0
    advice = advised(refused("export", home))
    assert advice == ["select", home]
    done(*advice)
    done("export", home)
    assert labelled_values(scored.home)[item] == "1"
    sent = identities((scored.stage("handed_out/generic-001") / "images.parquet").read_table())
    assert sent == picks(scored)
    assert not sent & out


def test_advice_for_a_folder_with_a_space_can_be_pasted(make_campaign: MakeCampaign) -> None:
    home = make_campaign(name="two words").home
    item = min(labelled_values(home))
    error = refused("labels", str(home), "set", *item, " ")
    done(*shlex.split(error.partition("to take it away: vaal ")[2]))
    assert item not in labelled_values(home)
    error = refused("labels", str(home), "retract", *item)
    done(*shlex.split(error.partition("see: vaal ")[2]))
