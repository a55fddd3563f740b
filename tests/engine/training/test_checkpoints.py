"""A checkpoint is whole or passed over, and neither it nor a weight file ever holds what is not finite."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import vaal.paper
from engine.errors import VaalError
from engine.models.weights import make_networks, save_weights
from engine.storage.location import Location
from engine.training.checkpoints import RunState, fault_of, read_checkpoint, write_checkpoint
from engine.training.labelled import Part
from engine.training.metrics import LOG_STEPS, LOSSES, StepLog
from engine.training.plan import plan_training
from engine.training.train import _name_of_run
from tests.conftest import MakeCampaign

PROGRESS = RunState(7, [{"step": 6, "epoch": 0, "task": None}], {"batch": 7, "streams": {"0": {}}}, {"gap": 0.25})


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path, {"vae": {"weight/a": torch.arange(4.0), "step": torch.tensor(7.0)}}, PROGRESS)
    return tmp_path


def test_what_was_written_is_read(written: Path) -> None:
    assert fault_of(written) == ""
    engines, progress = read_checkpoint(written)
    assert progress == PROGRESS
    assert set(engines) == {"vae"}
    assert torch.equal(engines["vae"]["weight/a"], torch.arange(4.0))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "fault"),
    [
        ("vae.safetensors", cut, "vae.safetensors is not what was written"),
        ("vae.safetensors", flip, "vae.safetensors is not what was written"),
        ("vae.safetensors", Path.unlink, "vae.safetensors is missing"),
        ("progress.json", cut, "progress.json is not what was written"),
        ("checkpoint.json", cut, "checkpoint.json is damaged"),
        ("checkpoint.json", Path.unlink, "checkpoint.json is missing"),
        ("checkpoint.json", lambda file: file.write_text("[]"), "checkpoint.json is damaged"),
    ],
)
def test_damage_is_recognised(written: Path, name: str, damage: Callable[[Path], Any], fault: str) -> None:
    damage(written / name)
    assert fault_of(written) == fault


def test_a_checkpoint_that_was_cut_off_has_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_checkpoint(tmp_path, {}, PROGRESS._replace(guard={"gap": object()}))
    assert fault_of(tmp_path) == "checkpoint.json is missing"


def test_a_checkpoint_is_a_good_one(tmp_path: Path) -> None:
    with pytest.raises(VaalError, match="step 7: exp_avg/a of vae is not finite"):
        write_checkpoint(tmp_path, {"vae": {"exp_avg/a": torch.tensor([1.0, float("inf")])}}, PROGRESS)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def single_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Board:
    """Takes what the driver would show."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, dict[str, float]]] = []
        self.rows: list[dict[str, Any]] = []
        self.show = self

    def remote(self, step: int, losses: dict[str, float], rows: list[dict[str, Any]]) -> None:
        self.shown.append((step, losses))
        self.rows += rows


def losses(**given: float) -> dict[str, torch.Tensor | None]:
    return {name: torch.tensor(given[name]) if name in given else None for name in LOSSES}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_its_step_its_name_and_the_last_checkpoint(
    single_process: None, value: float
) -> None:
    log = StepLog(Part(0, 1), Board())
    log.add(3, 0, losses(transductive=1.0, discriminator=2.0))
    log.add(4, 0, losses(transductive=1.0, discriminator=value))
    with pytest.raises(
        VaalError, match=rf"step 4: the discriminator loss is {value}; last good checkpoint: /c \(step 2\)"
    ):
        log.flush("/c (step 2)")
    assert [row["step"] for row in log.rows] == [3]


def test_losses_are_logged_as_they_are_and_null_where_there_are_none(single_process: None, tmp_path: Path) -> None:
    board = Board()
    log = StepLog(Part(0, 1), board)
    for step in range(LOG_STEPS):
        log.add(step, step // 4, losses(**({"adversarial": 0.5} if step % 2 else {}), discriminator=float(step)))
        if step == 3:
            log.flush("none yet")
    log.flush("none yet")
    assert [row["step"] for row in board.rows] == list(range(LOG_STEPS))
    assert board.rows == log.rows
    assert board.shown[1:] == [(LOG_STEPS, {"adversarial": 0.5, "discriminator": LOG_STEPS - 1.0})]
    log.save(Location(str(tmp_path / "train")))
    rows = Location(str(tmp_path / "train/metrics.parquet")).read_table().to_pylist()
    assert [row["adversarial"] for row in rows] == [0.5 if step % 2 else None for step in range(LOG_STEPS)]
    assert [(row["step"], row["epoch"], row["discriminator"]) for row in rows] == [
        (step, step // 4, step) for step in range(LOG_STEPS)
    ]


def test_a_weight_that_is_not_finite_is_never_written(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    networks = make_networks(make_campaign().config)
    assert networks.vae is not None
    with torch.no_grad():
        networks.vae.to_logvar.weight[0, 0] = float("nan")
    with pytest.raises(
        VaalError, match=r"to_logvar.weight of vae.safetensors is not finite; lower train.learning_rate"
    ):
        save_weights(Location(str(tmp_path / "train")), networks.files())
    assert not (tmp_path / "train").exists()


@pytest.mark.heavy
def test_a_training_does_not_go_on_with_networks_of_another_shape(
    make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_training(make_campaign("train.preset=paper", "image.size=32"))
    name = _name_of_run(plan, {}, "")
    assert _name_of_run(plan, {}, "") == name
    monkeypatch.setattr(vaal.paper, "PAPER_SHAPE", replace(vaal.paper.PAPER_SHAPE, num_latents=31))
    assert _name_of_run(plan, {}, "") != name
