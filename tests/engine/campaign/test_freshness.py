"""What scores follow from: the code that an item passes on its way, and the rows that are asked for, but no others."""

import shutil
from pathlib import Path

import pytest

from engine.campaign import freshness
from engine.campaign.freshness import source_fingerprint
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.scoring import score
from engine.scoring.score import PASSED_THROUGH, code_fingerprint
from vaal.acquisition import ACQUISITIONS, Acquisition
from vaal.methods import METHODS


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the source that a test may change."""
    for package in ("vaal", "engine"):
        shutil.copytree(freshness.ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def changed_by(source: Path, file: str) -> bool:
    """Whether a comment at the end of a file changes the fingerprint of VAAL's scores."""
    rows = [METHODS["vaal"], ACQUISITIONS["vaal"]]
    before = source_fingerprint(PASSED_THROUGH, rows, source)
    path = source / file
    path.write_text(path.read_text() + "# changed\n")
    return source_fingerprint(PASSED_THROUGH, rows, source) != before


@pytest.mark.parametrize(
    "file",
    [
        "engine/pool/tar.py", "engine/pool/items.py", "engine/pool/shard.py", "engine/pool/images.py",
        "engine/pool/formats.py", "engine/pool/identity.py", "engine/scoring/chunks.py", "engine/scoring/scorer.py",
        "engine/tables/scores.py", "engine/models/weights.py", "vaal/assembly.py", "vaal/networks.py", "vaal/paper.py",
        "vaal/ablations.py", "vaal/acquisition/discriminator.py", "vaal/duplicates/perceptual_hash.py",
        "vaal/task/model.py",
    ],
)  # fmt: skip
def test_a_module_that_a_score_passes_through_changes_the_fingerprint(source: Path, file: str) -> None:
    assert changed_by(source, file)


@pytest.mark.parametrize(
    "file",
    [
        "engine/config/options.py", "engine/storage/location.py", "engine/storage/retries.py", "engine/errors.py",
        "engine/campaign/folder.py", "engine/pool/manifest.py", "engine/scoring/stream.py", "engine/scoring/score.py",
        "engine/scoring/resume.py", "engine/scoring/watchdog.py", "engine/selection/batch.py", "vaal/losses.py",
        "vaal/methods.py", "vaal/acquisition/__init__.py", "vaal/acquisition/uncertainty.py",
        "vaal/acquisition/wasserstein.py", "vaal/diversity/k_center.py",
    ],
)  # fmt: skip
def test_no_other_module_changes_it(source: Path, file: str) -> None:
    assert not changed_by(source, file)


def fingerprint_of(config: CampaignConfig) -> str:
    return code_fingerprint(config, config.acquisitions(has_task=True))


def test_a_row_counts_where_it_is_asked_for_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    vaal = override(CampaignConfig(), {"train.task": "classification"}, "test")
    with_margin = override(vaal, {"score.acquisition": ["margin", "vaal"]}, "test")
    before = [fingerprint_of(config) for config in (vaal, with_margin)]
    assert before[0] != before[1]
    assert fingerprint_of(override(vaal, {"train.method": "pixels"}, "test")) not in before
    monkeypatch.setitem(ACQUISITIONS, "entropy", Acquisition("vaal.acquisition.uncertainty:margin"))
    assert [fingerprint_of(config) for config in (vaal, with_margin)] == before
    monkeypatch.setitem(ACQUISITIONS, "margin", ACQUISITIONS["margin"]._replace(column="gap"))
    assert fingerprint_of(vaal) == before[0]
    assert fingerprint_of(with_margin) != before[1]


def test_the_modules_where_it_begins_exist() -> None:
    files = [freshness.ROOT / f"{name.replace('.', '/')}.py" for name in (*PASSED_THROUGH, score.__name__)]
    assert all(file.exists() for file in files)
    outside = [freshness.ROOT / name.replace(".", "/") for name in (*freshness.NOT_FOLLOWED, *freshness.TABLES)]
    assert all(path.exists() or path.with_suffix(".py").exists() for path in outside)
