"""DeepSpeed ZeRO as a `vaal.step.Updater`, with checkpoints that do not depend on it. The only module with DeepSpeed.

A checkpoint holds whole fp32 tensors: weights, buffers and Adam's moments. So a run can resume with another number of
workers and another ZeRO stage, which DeepSpeed's own checkpoints refuse.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from engine.config.train_options import TrainConfig

BUCKET_ELEMENTS = 20_000_000
_BOUNDED = (
    "reduce_bucket_size", "allgather_bucket_size",
    "stage3_max_live_parameters", "stage3_max_reuse_distance", "stage3_prefetch_bucket_size",
)  # fmt: skip
_MOMENTS = ("exp_avg", "exp_avg_sq")


def settings(train: TrainConfig, world: int) -> dict[str, Any]:
    """DeepSpeed's configuration for our options."""
    # By default a bucket holds 5e8 elements and stage 3 keeps 1e9 gathered. That is more than these networks have, so
    # nothing would be partitioned when memory matters.
    zero: dict[str, Any] = {"stage": train.zero_stage} | dict.fromkeys(_BOUNDED, BUCKET_ELEMENTS)
    if train.offload == "optimizer":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        # For bookkeeping only: the true number of images varies by one, and `Batch.weight` corrects for it.
        "train_micro_batch_size_per_gpu": max(1, train.batch_size // world // train.gradient_accumulation),
        "gradient_accumulation_steps": train.gradient_accumulation,
        # DeepSpeed's default clips at 1.0.
        "gradient_clipping": train.gradient_clipping,
        "zero_optimization": zero,
        # With offload DeepSpeed would require its own optimizer, which is compiled at first use.
        "zero_force_ds_cpu_optimizer": False,
        # bf16 is autocast over fp32 weights: one checkpoint format, and no precision is lost in the optimizer.
        "torch_autocast": {"enabled": train.precision == "bf16", "dtype": "bfloat16"},
    }


def start(device: str) -> None:
    """Join DeepSpeed to the existing process group. Call it before any engine is made."""
    os.environ["DS_ACCELERATOR"] = device
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    # init_distributed would compile this operator, which serves inference on CPUs only. That takes minutes and a C++
    # compiler, and a process killed meanwhile leaves a lock on which every later run hangs.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if device == "cuda" else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)


class EngineUpdater:
    """A DeepSpeed engine of a module and torch's Adam or AdamW, as a `vaal.step.Updater`."""

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any]) -> None:
        import deepspeed

        self.engine, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=config, dist_init_required=False
        )
        self._stage: int = self.engine.zero_optimization_stage()
        if self._stage == 0 and self.engine.device.type == "cpu":
            # A quarter faster there. From stage 1 on parameters are views of flat buffers; a GPU gains nothing.
            self.module.to(memory_format=torch.channels_last)

    @property
    def module(self) -> Any:
        return self.engine.module

    def __call__(self, *inputs: Tensor) -> Any:
        return self.engine(*inputs)

    def apply(self, loss: Tensor) -> None:
        self.engine.backward(loss)
        self.engine.step()

    def set_learning_rate(self, value: float) -> None:
        """Of the updates from now on."""
        for group in self._adam().param_groups:
            group["lr"] = value

    def full_state(self, *, keep: bool, moments: bool = True) -> dict[str, Tensor]:
        """Whole tensors on the CPU: "weight/NAME", "buffer/NAME" and with `moments` "exp_avg/NAME" etc. and "step".

        A collective. Only a worker that keeps the result holds more than one tensor at a time.
        """
        tensors = self._tensors(moments)
        return {name: tensor.detach().float().cpu().clone().contiguous() for name, tensor in tensors if keep}

    def _tensors(self, moments: bool) -> Iterator[tuple[str, Tensor]]:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        adam = self._adam()
        for name, parameter in self.module.named_parameters():
            if self._stage == 0:
                found = {"weight": parameter, **adam.state.get(parameter, {})}
            else:
                found = {"weight": safe_get_full_fp32_param(parameter)}
                if moments and self._num_updates():
                    found |= {key: safe_get_full_optimizer_state(parameter, key) for key in _MOMENTS}
            shape = getattr(parameter, "ds_shape", parameter.shape)
            for key in ("weight", *_MOMENTS) if moments else ("weight",):
                if key in found:
                    yield f"{key}/{name}", found[key].view(shape)
        for name, buffer in self.module.named_buffers():
            yield f"buffer/{name}", buffer
        if moments:
            yield "step", torch.tensor(float(self._num_updates()))

    def load(self, state: dict[str, Tensor]) -> None:
        """Load a result of `full_state` from any stage and number of workers. A collective."""
        import deepspeed

        parameters = dict(self.module.named_parameters())
        with torch.no_grad():
            for name, buffer in self.module.named_buffers():
                buffer.copy_(state[f"buffer/{name}"])
            gathered = deepspeed.zero.GatheredParameters(list(parameters.values()), modifier_rank=0)
            with gathered if self._stage == 3 else nullcontext():
                if self._stage < 3 or torch.distributed.get_rank() == 0:
                    for name, parameter in parameters.items():
                        parameter.copy_(state[f"weight/{name}"])
            if self._stage > 0:
                self._load_partitioned(parameters, state)
            elif float(state["step"]):
                for name, parameter in parameters.items():
                    moments = {key: torch.empty_like(parameter).copy_(state[f"{key}/{name}"]) for key in _MOMENTS}
                    self._adam().state[parameter] = {"step": state["step"].clone(), **moments}

    def _load_partitioned(self, parameters: dict[str, nn.Parameter], state: dict[str, Tensor]) -> None:
        """Load the fp32 master weights and Adam's moments, of which each worker holds a part."""
        from deepspeed import utils

        optimizer = self.engine.optimizer
        steps = state["step"]
        if float(steps):
            # ZeRO would allocate the moments in its first step, and the setters below need them.
            name = "fp32_partitioned_groups_flat" if self._stage == 3 else "single_partition_of_fp32_groups"
            for flat in getattr(optimizer, name):
                zeros = {key: torch.zeros_like(flat) for key in _MOMENTS}
                self._adam().state[flat] = {"step": steps.clone(), **zeros}
            if self._stage < 3:
                optimizer._lazy_init_hp_params_optimizer_state()
        for name, parameter in parameters.items():
            values = {key: state[f"{key}/{name}"] for key in _MOMENTS} if float(steps) else {}
            if self._stage == 3:
                # At stage 3 the setters for whole tensors fail if the number of workers does not divide the size.
                utils.safe_set_local_fp32_param(parameter, _part(parameter, state[f"weight/{name}"]))
                for key, value in values.items():
                    utils.safe_set_local_optimizer_state(parameter, _part(parameter, value), key)
            else:
                utils.safe_set_full_fp32_param(parameter, state[f"weight/{name}"])
                for key, value in values.items():
                    utils.safe_set_full_optimizer_state(parameter, value, key)

    def _adam(self) -> Any:
        return self.engine.optimizer if self._stage == 0 else self.engine.optimizer.optimizer

    def _num_updates(self) -> int:
        return next((int(float(entry["step"])) for entry in self._adam().state.values() if "step" in entry), 0)


def _part(parameter: Any, whole: Tensor) -> Tensor:
    """This worker's part of a tensor that ZeRO 3 has cut into equal, padded parts."""
    size = parameter.ds_tensor.ds_numel if hasattr(parameter.ds_tensor, "ds_numel") else parameter.ds_tensor.numel()
    padded = torch.zeros(size * torch.distributed.get_world_size(), device=parameter.ds_tensor.device)
    padded[: whole.numel()] = whole.flatten()
    return padded.narrow(0, size * torch.distributed.get_rank(), size)
