"""Fully connected networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from ismcore.calculus import Calculus
from ismcore.models.activations import get_activation
from ismcore.models.network import Init, Network, affine, check_widths
from ismcore.ops import Array, Params

__all__ = ["MLP"]


@dataclass(frozen=True)
class MLP(Network):
    """A fully connected network: z = W h + b in every layer, the activation after every layer but the last.

    Parameters: `layers.{l}.weight` of shape (out, in) and `layers.{l}.bias` of shape (out,), torch's and Equinox's layout.
    `MLP()` is the network of the default recipe of `fit`.

    Args:
        hidden: Widths of the hidden layers.
        activation: "sigmoid", "tanh", "softplus", "silu", "gelu" (the exact one), "gelu_tanh", or "relu", which is refused
            by objectives that differentiate in x.
        init: "kaiming_uniform": weights U(+-sqrt(3) gain / sqrt(in)), the gain that of the activation after the layer (1 for
            none), biases U(+-1 / sqrt(in)), as in the reference run (He et al. 2015). "glorot_uniform": weights
            U(+-sqrt(6 / (in + out))), biases zero (Glorot & Bengio 2010).
        output_bias: Whether the last layer has a bias.

    Raises:
        OptionError: An option is none of the above.

    Cost: sum(in * out) multiplications a row and score.

    Example:
        >>> ismcore.MLP(hidden=(8,)).shapes(d=1)
        {'layers.0.weight': (8, 1), 'layers.0.bias': (8,), 'layers.1.weight': (1, 8), 'layers.1.bias': (1,)}
    """

    hidden: tuple[int, ...] = (64,)
    activation: str = "silu"
    init: Init = "kaiming_uniform"
    output_bias: bool = field(default=True, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", check_widths(self.hidden, self.activation, self.init))

    def layers(self, fan_in: int, fan_out: int) -> dict[str, tuple[int, int]]:
        """See `Network.layers`."""
        widths = pairwise((fan_in, *self.hidden, fan_out))
        return {f"layers.{number}": (out, into) for number, (into, out) in enumerate(widths)}

    def forward(self, calculus: Calculus, params: Params, x: Array) -> Array:
        """See `Network.forward`."""
        sigma = get_activation(self.activation).value
        *hidden, last = self.layers(1, 1)
        h = x
        for name in hidden:
            h = sigma(calculus.ops, affine(calculus, params, name, h))
        return affine(calculus, params, last, h)
