"""Logistic regression: convex, so that its result depends on the data alone.

Shape suffixes: N items, D dimensions, C classes, P parameters.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_ITERATIONS = 200
TOLERANCE = 1e-7
"""Of the largest component of the gradient."""


def fit_logistic(
    x_ND: Tensor, label_N: Tensor, num_classes: int, l2: float, weight_N: Tensor | None = None,
    start: nn.Linear | None = None,
) -> nn.Linear:  # fmt: skip
    """The linear layer with the least mean cross-entropy + l2 / 2 |W|^2; biases are free.

    Of two classes it has one output, the logit of class 1; of more, a logit each, softmax. Minimised by L-BFGS (Liu and
    Nocedal 1989) in float64 on the CPU; the layer is float32.

    Args:
        label_N: int64, from 0 to num_classes - 1.
        l2: in nats; with l2 > 0 the minimum is unique, but for the biases' common part.
        weight_N: weights of the items, which are divided by their sum; equal without.
        start: where to begin, for speed alone.

    Raises ValueError if a value of x is not finite.
    """
    x_ND = x_ND.detach().double().cpu()
    if not torch.isfinite(x_ND).all():
        raise ValueError("a value is not finite")
    num_outputs = 1 if num_classes == 2 else num_classes
    weight_N = torch.ones(len(x_ND)) if weight_N is None else weight_N
    share_N = weight_N.double().cpu() / float(weight_N.sum())
    label_N = label_N.cpu()
    layer = nn.Linear(x_ND.shape[1], num_outputs, dtype=torch.float64)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    if start is not None:
        layer.load_state_dict(start.state_dict())

    def loss() -> Tensor:
        logit_NC = layer(x_ND)
        if num_outputs == 1:
            loss_N = F.softplus(torch.where(label_N == 1, -logit_NC[:, 0], logit_NC[:, 0]))
        else:
            loss_N = F.cross_entropy(logit_NC, label_N, reduction="none")
        return (share_N * loss_N).sum() + l2 / 2 * layer.weight.square().sum()

    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=MOST_ITERATIONS, tolerance_grad=TOLERANCE, tolerance_change=0.0,
        history_size=20, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        torch.autograd.backward(value)
        return value.detach()

    optimizer.step(closure)
    return layer.float().requires_grad_(False)
