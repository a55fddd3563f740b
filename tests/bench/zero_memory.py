"""Memory of a rank under ZeRO 0 to 3, in bytes a parameter, beside what the stages promise.

    python tests/bench/zero_memory.py [small]

Two ranks over gloo, fresh processes for every stage, train the VAE of 205 million parameters (small: 14 million, and
only ZeRO 1 and 3) for two updates of an image of each pool. All figures are resident memory less that before the
network was made: with the network, with the engine, after the updates, and the highest until then. Then the whole state
is gathered as for a checkpoint, which rank 0 keeps: seconds, size, and the highest memory since the start. Promised for
n ranks, with fp32 weights (4), gradients (4) and Adam's moments (8): 16; 8 + 8/n; 4 + 12/n; 16/n. Between updates there
are no gradients, and the highest holds activations and whatever DeepSpeed copies besides.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from measure import is_small, machine, resident_bytes

from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.training import zero
from tests.learn import leave
from vaal.losses import transductive_loss
from vaal.networks import VAE, NetworkShape

RANKS = 2
SIDE = 32
SHAPES = {
    "small": NetworkShape(width=256, max_width=1024, num_latents=32, discriminator_width=128),
    "large": NetworkShape(width=1024, max_width=4096, num_latents=32, discriminator_width=128),
}
PROMISED = (16.0, 8 + 8 / RANKS, 4 + 12 / RANKS, 16 / RANKS)
COLUMNS = ("network", "engine", "updated", "peak", "gathered")


def rank_main(stage: int, size: str, store: str) -> None:
    """One rank: prints its memory as JSON."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    zero.start("cpu")
    config = override(CampaignConfig(), {"train.zero_stage": stage, "train.batch_size": RANKS}, "bench")
    before, memory = resident_bytes(), {}
    torch.manual_seed(0)
    vae = VAE(SIDE, 3, SHAPES[size])
    num_parameters = sum(parameter.numel() for parameter in vae.parameters())
    memory["network"] = resident_bytes()
    optimizer = torch.optim.Adam(vae.parameters(), lr=config.train.learning_rate)
    updater = zero.EngineUpdater(vae, optimizer, zero.settings(config.train, RANKS))
    memory["engine"] = resident_bytes()
    x_BCHW, noise_BZ = torch.rand(2, 3, SIDE, SIDE) * 2 - 1, torch.randn(2, SHAPES[size].num_latents)
    for _ in range(2):
        image_BCHW, mean_BZ, logvar_BZ = updater(x_BCHW, noise_BZ)
        updater.apply(transductive_loss(image_BCHW, x_BCHW, mean_BZ, logvar_BZ, beta=1.0))
    del image_BCHW, mean_BZ, logvar_BZ
    memory["updated"], memory["peak"] = resident_bytes(), resident_bytes(peak=True)
    begin = time.perf_counter()
    state = updater.full_state(keep=rank == 0)
    seconds = time.perf_counter() - begin
    memory["gathered"] = resident_bytes(peak=True)
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    found = {name: (value - before) / num_parameters for name, value in memory.items()}
    print(json.dumps({**found, "parameters": num_parameters, "seconds": seconds, "state": size_bytes}))
    leave()


def measured(stage: int, size: str) -> list[dict[str, float]]:
    """What the ranks of a stage printed."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, __file__, "rank", str(stage), size, f"{folder}/store"]
        where = {"WORLD_SIZE": str(RANKS), "OMP_NUM_THREADS": "1"}
        ranks = [
            subprocess.Popen(
                words, env={**os.environ, **where, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE, stderr=(Path(folder) / f"{rank}.err").open("w"), text=True,
            )
            for rank in range(RANKS)
        ]  # fmt: skip
        outputs = [process.communicate()[0] for process in ranks]
        if any(process.returncode for process in ranks):
            sys.exit("".join((Path(folder) / f"{rank}.err").read_text()[-3000:] for rank in range(RANKS)))
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def main() -> None:
    size = "small" if is_small() else "large"
    print(f"{machine()}; {RANKS} ranks of 1 thread")
    print("bytes a parameter  " + "".join(f"{name:>10}" for name in (*COLUMNS, "promised")))
    for stage in (1, 3) if is_small() else range(4):
        ranks, promised = measured(stage, size), PROMISED[stage]
        for rank, found in enumerate(ranks):
            values = "".join(f"{found[name]:10.1f}" for name in COLUMNS)
            print(f"ZeRO {stage}, rank {rank:<6} {values}{promised:10.1f}")
        found = ranks[0]
        print(
            f"  {found['parameters'] / 1e6:.1f} M parameters; the whole state: {found['state'] / 2**30:.2f} GiB "
            f"gathered in {found['seconds']:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        rank_main(int(sys.argv[2]), sys.argv[3], sys.argv[4])
    else:
        main()
