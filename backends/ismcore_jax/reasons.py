"""What errors of JAX's say of the network that is traced or differentiated, in words that name a remedy."""

from __future__ import annotations

import re

__all__ = ["reason"]

_REASONS = (
    (
        "Reverse-mode differentiation does not work for lax.while_loop",
        "it loops as often as values say (lax.while_loop, or lax.fori_loop with such bounds), and JAX differentiates no such "
        "loop backwards: use lax.scan, or lax.fori_loop with fixed bounds",
    ),
    (
        "callbacks do not support JVP",
        "it calls Python while it runs (pure_callback, io_callback), of which JAX knows no derivative: write that part in "
        "jax.numpy, or give it a derivative by jax.custom_jvp",
    ),
    (
        r"Differentiation rule for '(?P<what>[^']*)' not implemented",
        "JAX has no derivative of its operation {what}, or none of the order that is needed here: write that part with other "
        "operations, give it one by jax.custom_jvp, or take an objective that does not differentiate in x, such as "
        "DenoisingScoreMatching",
    ),
    (
        "Linearization failed to produce known values",
        "it holds an operation that JAX cannot differentiate backwards, as a Pallas kernel: give it a derivative by "
        "jax.custom_vjp",
    ),
    (
        "TracerArrayConversionError",
        "it hands x, or what it computed of x, to NumPy, where JAX cannot follow: use jax.numpy, also in a custom_vjp",
    ),
    (
        "TracerBoolConversionError",
        "it branches on values (if, while, and, or, max of Python), which are not known when JAX traces it: use jnp.where or "
        "lax.cond",
    ),
    (
        "NonConcreteBooleanIndexError",
        "it makes arrays whose size depends on values, such as h[h > 0]: use jnp.where",
    ),
    (
        "ConcretizationTypeError|TracerIntegerConversionError",
        "it makes Python's numbers, or shapes, of values (float(), int(), .item()), which are not known when JAX traces it: "
        "leave them arrays",
    ),
    (
        "UnexpectedTracerError",
        "it keeps what one call has computed for the next (an attribute, a global or a cache that a call writes to): let each "
        "call compute it anew",
    ),
)
"""Patterns of an error's type and text, and what to say."""


def reason(error: BaseException | None) -> str | None:
    """What an error of JAX's says of a network, with a remedy; None for any other error.

    Example:
        >>> reason(ValueError("Pure callbacks do not support JVP."))[:29]
        'it calls Python while it runs'
        >>> reason(ValueError("shapes differ")) is None
        True
    """
    text = f"{type(error).__name__}: {error}"
    for pattern, words in _REASONS:
        found = re.search(pattern, text)
        if found:
            return words.format(**found.groupdict())
    return None
