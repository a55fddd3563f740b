"""Strategies by name: each is a campaign that can be made, and is what papers call it."""

from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.simulation.strategies import STRATEGIES
from tests.engine.simulation.test_experiment import DIGITS, read
from tests.engine.simulation.test_pixel_experiment import PIXELS
from vaal.methods import METHODS

LISTED = f"strategies = {sorted(STRATEGIES)}".replace("'", '"')
TASK = 'image.size = 32\ntrain.task = "classification"'


def named_on_pixels(folder: Path) -> str:
    text = PIXELS.partition("[[strategies]]")[0].format(folder)
    return f"{LISTED}\n{text}".replace("image.size = 16", TASK)


def test_every_named_strategy_is_a_campaign(tmp_path: Path) -> None:
    experiment = read(tmp_path, named_on_pixels(tmp_path))
    configs = {one.name: experiment.config_of(one, 3) for one in experiment.strategies}
    assert set(configs) == set(STRATEGIES)
    lowest = set(configs) - {"random", "default", "core_set"}
    assert {configs[name].select.diversity for name in lowest} == {"none"}
    assert {configs[name].select.duplicates for name in lowest} == {"off"}
    # The paper's rule asks no task learner, so none is trained for it.
    assert not any(configs[name].has_task for name in ("random", "vaal", "vaal_2019", "frozen_vae", "vae_only"))
    methods = {"vaal": "vaal", "discriminator_only": "pixels", "frozen_vae": "frozen_vae", "vae_only": "vae_only"}
    assert {name: configs[name].method for name in methods} == {name: METHODS[row] for name, row in methods.items()}
    ranks = {"mc_dropout": "mean_std", "dbal": "predictive_entropy", "ensemble_varr": "ensemble_varr"}
    assert {name: configs[name].select.acquisition for name in ranks} == ranks
    core_set = configs["core_set"]
    assert (core_set.select.diversity, core_set.has_task, core_set.needs_method) == ("k_center", True, False)
    assert experiment.kind_of(next(one for one in experiment.strategies if one.name == "vaal_2019")) == "vaal_2019"


def test_names_and_tables_mix_and_others_are_refused(tmp_path: Path) -> None:
    text = DIGITS.partition("[[strategies]]")[0]
    mixed = 'strategies = ["margin", {name = "mine", select.diversity = "none"}]\n'
    found = read(tmp_path, f'{mixed}{text}[campaign]\ntrain.task = "classification"\n')
    assert [one.name for one in found.strategies] == ["random", "margin", "mine"]
    with pytest.raises(ConfigError, match=r"'margn' is none of random, default, .*; give one, or a table") as refused:
        read(tmp_path, f'strategies = ["margn"]\n{text}')
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ('["resnet19"]', "'resnet19' is none of linear"),
        ('["small+weak"]', "behind + there is only strong"),
        ('["linear+strong"]', "for networks on pixels; give linear"),
        ('["unet"]', "unet needs masks of pool.shards"),
    ],
)
def test_task_models_are_those_of_the_table(tmp_path: Path, tasks: str, words: str) -> None:
    text = PIXELS.format(tmp_path).replace('["small"]', tasks)
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, text)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
