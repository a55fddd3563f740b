"""A train manifest says what was found, and each finding names the setting that fixes it."""

import json
import math
from typing import Any

import pytest

from engine.config.options import fields
from engine.models.diagnosis import findings_of, manifest_entries, summary
from tests.conftest import found
from vaal.signal import CONFIDENCE, Diagnosis, Interval

HEALTHY = found("present")


def findings(diagnosis: Diagnosis) -> list[str]:
    return list(manifest_entries(diagnosis)["diagnosis"]["findings"])


def test_the_manifest_holds_every_number() -> None:
    entries = json.loads(json.dumps(manifest_entries(HEALTHY), allow_nan=False))
    assert entries == {
        "signal": "present",
        "diagnosis": {
            "auc": 0.93, "auc_low": 0.88, "auc_high": 0.97, "confidence": CONFIDENCE,
            "held_out": {"labelled": 40, "unlabelled": 400},
            "active_units": 30, "latent_units": 32, "kl_per_unit": HEALTHY.kl_Z,
            "mean_squared_error": 0.06, "saturation": 0.01, "findings": [],
            "lift": {"value": 6.34, "low": 2.51, "high": 16.2, "share": 0.25},
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"active_units": 3}, ["collapsed", "3 of 32 latent units", "lower train.beta"]),
        (
            {"saturation": 0.62},
            ["saturated", "62%", "±7", "raise train.adversarial_weight", "lower train.discriminator_steps"],
        ),
        ({"auc": Interval(0.52, 0.46, 0.58)}, ["0.46 to 0.58, includes 0.5", "look like the rest of the pool"]),
        ({"auc": Interval(0.3, 0.2, 0.4)}, ["0.20 to 0.40, is below 0.5"]),
        ({"auc": Interval(0.9, 0.0, 1.0), "num_labelled": 7}, ["7 labelled and 400", "least 10 of each", "label more"]),
    ],
)
def test_a_fault_is_one_line_with_its_mend(change: dict[str, Any], says: list[str]) -> None:
    diagnosis = HEALTHY._replace(**change)
    (line,) = findings(diagnosis)
    assert "\n" not in line
    for words in says:
        assert words in line
    entries: Any = manifest_entries(diagnosis)
    (by_vaal,), (by_margin,) = findings_of(entries, "vaal"), findings_of(entries, "margin")
    assert ("select.when_no_signal decides" in by_vaal) == (diagnosis.signal == "none") == ("auc" in change)
    # Another score ranks whatever a test says.
    assert "when_no_signal" not in by_margin
    assert ("select.acquisition=margin ranks all the same" in by_margin) == ("auc" in change)


def test_a_lift_without_a_bound_is_null_and_said_to_be_at_least_its_low_end() -> None:
    endless = manifest_entries(HEALTHY._replace(lift=Interval(40.2, 12.7, math.inf), lift_share=0.002))
    assert json.loads(json.dumps(endless, allow_nan=False))["diagnosis"]["lift"]["high"] is None
    assert "lift at least 13 among the lowest 0.2%" in summary(endless)


def test_groups_are_counted_and_too_few_of_them_are_said_to_be() -> None:
    few = manifest_entries(HEALTHY._replace(auc=Interval(0.9, 0.0, 1.0), num_groups=(7, 90)))["diagnosis"]
    assert few["held_out"] == {"labelled": 40, "unlabelled": 400, "labelled_groups": 7, "unlabelled_groups": 90}
    (line,) = few["findings"]
    assert "7 labelled and 90 unlabelled groups of images are held out, at least 10 of each are needed" in line


def test_faults_are_told_together() -> None:
    worst = HEALTHY._replace(active_units=0, saturation=1.0, auc=Interval(0.5, 0.4, 0.6))
    assert [line.split(",")[0] for line in findings(worst)] == [
        "the posterior has collapsed", "the discriminators are saturated", "no signal",
    ]  # fmt: skip


def test_a_setting_that_a_finding_names_exists() -> None:
    worst = HEALTHY._replace(active_units=0, saturation=1.0, auc=Interval(0.5, 0.4, 0.6))
    entries: Any = manifest_entries(worst)
    words = " ".join(findings_of(entries, "vaal")).replace(";", " ").split()
    named = {word for word in words if word.startswith(("train.", "select."))}
    assert len(named) == 4
    assert named <= set(fields())


def test_one_line_says_it_all() -> None:
    assert summary(manifest_entries(HEALTHY)) == (
        "signal present: AUC 0.93 (0.88 to 0.97), lift 6.3 (2.5 to 16) among the lowest 25%, "
        "30 of 32 latent units active"
    )
    assert summary(manifest_entries(found("none"))) == (
        "no signal: AUC 0.52 (0.46 to 0.58), lift 1.1 (0.72 to 1.8) among the lowest 25%, 30 of 32 latent units active"
    )
    without_vae = HEALTHY._replace(kl_Z=[], active_units=0, mean_squared_error=None, lift=None)
    assert summary(manifest_entries(without_vae)) == "signal present: AUC 0.93 (0.88 to 0.97)"
    assert findings(without_vae) == []
