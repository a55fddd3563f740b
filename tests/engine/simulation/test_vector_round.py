"""A round on embeddings in memory has every score, with or without VAAL's discriminators."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from engine.campaign.folder import Campaign
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.simulation.vector_round import train_and_score
from engine.storage.location import Location
from vaal.acquisition import ACQUISITIONS, column_of

FITTED = [name for name, row in ACQUISITIONS.items() if row.fit]


@pytest.mark.heavy
@pytest.mark.parametrize("with_vaal", [True, False])
def test_it_scores_by_functions_that_are_fitted_and_by_identity(with_vaal: bool) -> None:
    bunch = load_digits()
    vectors, labels = bunch.data[:400].astype(np.float32), [str(number) for number in bunch.target[:400]]
    listed = [*(["vaal"] if with_vaal else []), "margin", "random", *FITTED]
    settings = {"train.input": "embeddings", "pool.embeddings": "e.parquet", "score.acquisition": listed}
    config = override(CampaignConfig(), {**settings, "select.acquisition": "margin"}, "test")
    campaign = Campaign(Location("/nowhere"), config, 0)
    names = [("a.tar", f"{number:04}") for number in range(400)]
    place_L = np.arange(0, 400, 4)
    found = train_and_score(campaign, names, vectors, place_L, [labels[place] for place in place_L])
    columns = found.scores.columns
    assert {column_of(name) for name in listed} <= columns.keys()
    assert all(np.isfinite(columns[column_of(name)]).all() for name in listed)
    # What is labelled is at no distance from what is labelled.
    distance = -columns["core_set"]
    assert distance[place_L].max() < 1e-2 < np.median(distance)
    assert len(np.unique(columns["random"])) == 400
    assert found.details.get("diagnosis", {}).get("is_trained", True) is with_vaal
