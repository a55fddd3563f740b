"""What an acquisition function keeps of what it was fitted to."""

from torch import Tensor, nn


class Summary(nn.Module):
    """Tensors that an acquisition function was fitted to, by name."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    @property
    def tensors(self) -> dict[str, Tensor]:
        return dict(self.named_buffers())
