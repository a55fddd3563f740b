"""Where the networks run that a trial trains itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.simulation.devices import on_device
from engine.simulation.simulate import simulate
from tests.engine.simulation.test_pixel_experiment import PIXELS

IN_A_CLUSTER = """
import os
import ray
from engine.cluster import ray_session
from engine.simulation.devices import on_device

def seen():
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()

@ray.remote(num_cpus=0)
def trial(device):
    return on_device(device, seen), os.getpid()

options = ray_session._local_options()
ray_session._local_options = lambda: options | {"num_gpus": 1}
with ray_session.ray_session("local"):
    for device in ("cuda", "cpu"):
        (gpu, worker), own = ray.get(trial.remote(device))
        print(device, gpu, worker == own)
"""


@pytest.mark.heavy
def test_a_trial_of_a_cluster_gets_a_gpu_for_what_it_trains_itself() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CLUSTER], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["cuda 0 False", "cpu None True"]


def test_a_process_that_is_no_task_calls_it_itself() -> None:
    assert on_device("cuda", os.getpid) == os.getpid()


def test_a_gpu_that_is_not_there_is_missed_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    text = PIXELS.format(tmp_path / "nowhere").replace("[campaign]", '[campaign]\ndevice = "cuda"')
    assert "cuda" in text
    (tmp_path / "one.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"device=cuda: this machine has no GPU .* --set campaign.device=cpu"):
        simulate(str(tmp_path / "one.toml"), str(tmp_path / "out"))
