"""Activation functions of a network, each written once over `Ops`.

The formulas stay finite, in value and in the derivatives that score matching takes, for arguments of any size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ismcore.errors import OptionError
from ismcore.ops import Array, Ops

__all__ = ["ACTIVATIONS", "Activation", "get_activation"]


@dataclass(frozen=True)
class Activation:
    """An element-wise function and what is known about it.

    Attributes:
        name: What users call it.
        value: sigma(ops, z), of z's shape.
        gain: Factor by which `init="kaiming_uniform"` widens the layer that it follows: Lux's `calculate_gain`, which the
            reference run was drawn with. It is 2 for relu, where torch has sqrt(2).
        smooth: Whether the second derivative exists and carries information; false for piecewise-linear functions.
    """

    name: str
    value: Callable[[Ops, Array], Array]
    gain: float = 1.0
    smooth: bool = True


def _sigmoid(ops: Ops, z: Array) -> Array:
    # 1 / (1 + exp(-z)) overflows for z << 0, in value or in a derivative, depending on the framework; tanh does not.
    return 0.5 * (1.0 + ops.tanh(0.5 * z))


def _softplus(ops: Ops, z: Array) -> Array:
    return ops.logaddexp(z, 0.0)


def _silu(ops: Ops, z: Array) -> Array:
    return z * _sigmoid(ops, z)


def _gelu(ops: Ops, z: Array) -> Array:
    return 0.5 * z * (1.0 + ops.erf(z * math.sqrt(0.5)))


def _gelu_tanh(ops: Ops, z: Array) -> Array:
    # Hendrycks & Gimpel (2016), section 2: the tanh approximation, not the same function as gelu.
    return 0.5 * z * (1.0 + ops.tanh(math.sqrt(2.0 / math.pi) * (z + 0.044715 * z * z * z)))


def _relu(ops: Ops, z: Array) -> Array:
    return ops.where(z > 0.0, z, 0.0 * z)


ACTIVATIONS = {
    a.name: a
    for a in (
        Activation("sigmoid", _sigmoid),
        Activation("tanh", lambda ops, z: ops.tanh(z), gain=5.0 / 3.0),
        Activation("softplus", _softplus),
        Activation("silu", _silu),
        Activation("gelu", _gelu),
        Activation("gelu_tanh", _gelu_tanh),
        Activation("relu", _relu, gain=2.0, smooth=False),
    )
}


def get_activation(name: str) -> Activation:
    """Look an activation up by name.

    Raises:
        OptionError: The name is none of the known ones.
    """
    try:
        return ACTIVATIONS[name]
    except (KeyError, TypeError):
        raise OptionError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {name!r}") from None
