"""A pool of which nothing can be picked: every command ends in plain words."""

import numpy as np
import pytest

from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores
from tests.jobs.test_cli import refused, vaal


@pytest.mark.heavy
def test_a_pool_whose_every_image_is_in_quarantine(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign("score.max_bad_fraction=1")
    home = str(campaign.home)
    advice = f"not complete; run: vaal select {home}, or all that is missing: vaal round {home}"
    assert advice in refused(4, "report", home)
    pretend_trained(campaign)
    fabricate_scores(campaign, lambda _, keys: np.arange(len(keys), dtype=np.float32), quarantine_every=1)
    line = "only 0 items are neither labelled, quarantined nor picked before; lower it: --set select.budget=0"
    assert line in refused(2, "select", home)
    assert f"not complete; run: vaal select {home}" in refused(4, "report", home)
    for words, text in (
        (("select", home, "--set", "select.budget=0"), "picked       0"),
        (("export", home), "images   0"),
        (("report", home), "report.html"),
        (("status", home), "1,797 bad"),
        (("select", home, "--explain", "digits-00000.tar", "000000"), "quarantined"),
    ):
        ended = vaal(*words)
        assert (ended.exit_code, text in ended.output) == (0, True), ended.output
