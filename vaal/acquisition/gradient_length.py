"""Expected gradient length: how much the label of an image is expected to change the last layer.

Shape suffixes: B batch, D components of the features, C outputs, K values of an answer, P answers of an item.
"""

from torch import Tensor

from vaal.acquisition.view import View


def expected_gradient_length(view: View) -> Tensor:
    """Minus the expected length of the gradient of the loss by the last layer (B,), float32 (Settles and Craven 2008,
    EMNLP, section 3.3).

    If the answer is y, the gradient of its cross-entropy by weights and bias is (p - e_y) [h, 1], where h are the
    features. Its length times the probability of y, summed over all y, is

        sqrt(|h|^2 + 1) sum_y p_y sqrt(|p|^2 - 2 p_y + 1),

    with |h|^2 alone where the layer has no bias. Labels are answers of their own, each with one row of the layer, for
    which the sum is 2 p (1 - p); so are the pixels of a map. `View.reduced` makes one score of several. The length is
    by the layer that gives the logits as they are, already divided by the temperature.

    |h| varies with contrast and blur. Without the factor (`Settings.with_norm`), images that are loud gain nothing.

    Raises ValueError if the head is not one linear layer.
    """
    length_BP, has_bias = _residual_length(view), view.linear.bias is not None
    if view.settings.with_norm:
        # Labels share the features of their image.
        squared_BP = view.features.square().sum(dim=1).view(len(length_BP), -1)
        length_BP = length_BP * (squared_BP + has_bias).sqrt()
    return view.reduced(-length_BP)


def _residual_length(view: View) -> Tensor:
    """The expected length of p - e_y of each answer (B, P)."""
    p_BKP = view.log_p.exp()
    if view.task.kind == "labels":
        return 2 * p_BKP.prod(dim=1)
    # |p|^2 - 2 p_y + 1 is (1 - p_y)^2 and the squares of the other probabilities. Near p_y = 1 rounding takes both, if
    # they are not sums of the others.
    square_BKP, first_B1P = p_BKP.square(), p_BKP.argmax(dim=1, keepdim=True)
    rest_B1P, small_B1P = (part.scatter(1, first_B1P, 0.0).sum(dim=1, keepdim=True) for part in (p_BKP, square_BKP))
    others_BKP = small_B1P + square_BKP.gather(1, first_B1P) - square_BKP
    others_BKP = others_BKP.scatter(1, first_B1P, small_B1P).clamp_min(0)
    rest_BKP = (1 - p_BKP).scatter(1, first_B1P, rest_B1P)
    return (p_BKP * (rest_BKP.square() + others_BKP).sqrt()).sum(dim=1)
