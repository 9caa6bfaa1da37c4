"""Activation functions of a network, each written once over `Ops`.

The formulas stay finite, in value and in the derivatives that score matching takes, for arguments of any size.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from ismcore.errors import OptionError
from ismcore.ops import Array, Ops

__all__ = ["ACTIVATIONS", "Activation", "get_activation"]


Jet = Iterator[Array]


@dataclass(frozen=True)
class Activation:
    """An element-wise function and what is known about it.

    Attributes:
        name: What users call it.
        value: sigma(ops, z), of z's shape.
        jet: sigma and its first three derivatives at z, (ops, z) -> four arrays of z's shape, one after the other: what is not
            taken is not computed.
        gain: Factor by which `init="kaiming_uniform"` widens the layer that it follows: Lux's `calculate_gain`, which the
            reference run was drawn with. It is 2 for relu, where torch has sqrt(2).
        smooth: Whether the second derivative exists and carries information; false for piecewise-linear functions.
    """

    name: str
    value: Callable[[Ops, Array], Array]
    jet: Callable[[Ops, Array], Jet]
    gain: float = 1.0
    smooth: bool = True


def _sigmoid_jet(ops: Ops, z: Array) -> Jet:
    s = ops.sigmoid(z)
    yield s
    plus_product = getattr(ops, "plus_product", None)
    if plus_product:
        d1 = plus_product(s, -1.0, s, s)
        yield d1
        yield plus_product(d1, -2.0, d1, s)
        yield plus_product(d1, -6.0, d1, d1)
        return
    rest = 1.0 - s
    d1 = s * rest
    yield d1
    rest -= s
    rest *= d1
    yield rest
    yield d1 * (1.0 - 6.0 * d1)


def _tanh_jet(ops: Ops, z: Array) -> Jet:
    t = ops.tanh(z)
    yield t
    d1 = 1.0 - t * t
    yield d1
    d2 = t * d1
    d2 *= -2.0
    yield d2
    yield d1 * (4.0 - 6.0 * d1)


def _softplus(ops: Ops, z: Array) -> Array:
    return ops.logaddexp(z, 0.0)


def _softplus_jet(ops: Ops, z: Array) -> Jet:
    yield _softplus(ops, z)
    yield from islice(_sigmoid_jet(ops, z), 3)


def _silu(ops: Ops, z: Array) -> Array:
    return z * ops.sigmoid(z)


def _silu_jet(ops: Ops, z: Array) -> Jet:
    jet = _sigmoid_jet(ops, z)
    s = next(jet)
    yield z * s
    d1 = next(jet)
    slope = z * d1
    slope += s
    yield slope
    d2 = next(jet)
    second = z * d2
    second += d1
    second += d1
    yield second
    yield 3.0 * d2 + z * next(jet)


def _gelu(ops: Ops, z: Array) -> Array:
    return 0.5 * z * (1.0 + ops.erf(z * math.sqrt(0.5)))


def _gelu_jet(ops: Ops, z: Array) -> Jet:
    below = 0.5 * (1.0 + ops.erf(z * math.sqrt(0.5)))
    density = math.sqrt(0.5 / math.pi) * ops.exp(-0.5 * z * z)
    slope = z * density
    yield z * below
    yield below + slope
    yield 2.0 * density - z * slope
    yield (z * z - 4.0) * slope


_TANH_SLOPE, _TANH_CUBE = math.sqrt(2.0 / math.pi), 0.044715


def _gelu_tanh(ops: Ops, z: Array) -> Array:
    # Hendrycks & Gimpel (2016), section 2: the tanh approximation, not the same function as gelu.
    return 0.5 * z * (1.0 + ops.tanh(_TANH_SLOPE * (z + _TANH_CUBE * z * z * z)))


def _gelu_tanh_jet(ops: Ops, z: Array) -> Jet:
    # t = tanh(u(z)); u1, u2 and u3 are the derivatives of u
    jet = _tanh_jet(ops, _TANH_SLOPE * (z + _TANH_CUBE * z * z * z))
    t, t1, t2 = next(jet), next(jet), next(jet)
    u3 = 6.0 * _TANH_SLOPE * _TANH_CUBE
    u2 = u3 * z
    u1 = _TANH_SLOPE + 0.5 * u2 * z
    yield 0.5 * z * (1.0 + t)
    d1 = t1 * u1
    yield 0.5 * (1.0 + t + z * d1)
    d2 = t2 * u1 * u1 + t1 * u2
    yield d1 + 0.5 * z * d2
    d3 = next(jet) * u1 * u1 * u1 + 3.0 * t2 * u1 * u2 + t1 * u3
    yield 1.5 * d2 + 0.5 * z * d3


def _relu(ops: Ops, z: Array) -> Array:
    return ops.where(z > 0.0, z, 0.0 * z)


def _relu_jet(ops: Ops, z: Array) -> Jet:
    zero = 0.0 * z
    yield _relu(ops, z)
    yield ops.where(z > 0.0, 1.0 + zero, zero)
    yield zero
    yield zero


ACTIVATIONS = {
    a.name: a
    for a in (
        Activation("sigmoid", lambda ops, z: ops.sigmoid(z), _sigmoid_jet),
        Activation("tanh", lambda ops, z: ops.tanh(z), _tanh_jet, gain=5.0 / 3.0),
        Activation("softplus", _softplus, _softplus_jet),
        Activation("silu", _silu, _silu_jet),
        Activation("gelu", _gelu, _gelu_jet),
        Activation("gelu_tanh", _gelu_tanh, _gelu_tanh_jet),
        Activation("relu", _relu, _relu_jet, gain=2.0, smooth=False),
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
