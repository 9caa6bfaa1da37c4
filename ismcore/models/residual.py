"""Residual networks."""

from __future__ import annotations

from dataclasses import dataclass

from ismcore.calculus import Calculus
from ismcore.errors import OptionError
from ismcore.models.activations import get_activation
from ismcore.models.network import Init, Network, affine, check_widths
from ismcore.ops import Array, Params

__all__ = ["ResidualMLP"]


@dataclass(frozen=True)
class ResidualMLP(Network):
    """A network of residual blocks: h = W_in x + b_in;  h += W2 sigma(W1 sigma(h) + b1) + b2 in each block;  W_out sigma(h).

    Parameters: `input`, `blocks.{k}.0`, `blocks.{k}.1` and `output`, each with `.weight` (out, in) and `.bias` (out,).

    Args:
        width: Width of every layer.
        blocks: Number of blocks.
        activation: As for `MLP`.
        init: As for `MLP`.

    Raises:
        OptionError: An option is none of the above.

    Source: He et al. (2016), Identity mappings in deep residual networks: activations come before the weights.

    Example:
        >>> list(ismcore.ResidualMLP(width=16, blocks=1).shapes(d=2))[:4]
        ['input.weight', 'input.bias', 'blocks.0.0.weight', 'blocks.0.0.bias']
    """

    width: int = 64
    blocks: int = 2
    activation: str = "silu"
    init: Init = "kaiming_uniform"

    def __post_init__(self) -> None:
        check_widths((self.width,), self.activation, self.init)
        if isinstance(self.blocks, bool) or not isinstance(self.blocks, int) or self.blocks < 1:
            raise OptionError(f"blocks must be a whole number from 1, not {self.blocks!r}")

    def layers(self, fan_in: int, fan_out: int) -> dict[str, tuple[int, int]]:
        """See `Network.layers`."""
        inner = {f"blocks.{k}.{half}": (self.width, self.width) for k in range(self.blocks) for half in range(2)}
        return {"input": (self.width, fan_in), **inner, "output": (fan_out, self.width)}

    def forward(self, calculus: Calculus, params: Params, x: Array) -> Array:
        """See `Network.forward`."""
        sigma = get_activation(self.activation).value
        h = affine(calculus, params, "input", x)
        for k in range(self.blocks):
            inner = affine(calculus, params, f"blocks.{k}.0", sigma(calculus.ops, h))
            h = h + affine(calculus, params, f"blocks.{k}.1", sigma(calculus.ops, inner))
        return affine(calculus, params, "output", sigma(calculus.ops, h))
