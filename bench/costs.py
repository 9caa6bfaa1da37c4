"""Multiplications of a step by the formulas of docs/scaling.md."""

from __future__ import annotations

from itertools import pairwise


def products(n, d, hidden, *, diagonal):
    """Multiplications in the matrix products of one step of a fully connected network of these widths.

    The score, forward and back, is 3 F - n d H_1, with F = n (d H_1 + sum H_l H_{l+1} + H_L d). What the divergence or the
    diagonal adds is three times its forward pass.
    """
    inner = [a * b for a, b in pairwise(hidden)]
    first, last = hidden[0], hidden[-1]
    score = 3 * n * (d * first + sum(inner) + last * d) - n * d * first
    if len(hidden) == 1:
        return score + (3 * n * d * first if diagonal else 3 * (n + d) * first)
    if diagonal:
        return score + 3 * n * d * sum(inner)
    if len(hidden) == 2:
        return score + 3 * (n + d) * first * last
    return score + 3 * min(n * d * sum(inner), n * first * sum(inner[1:]) + d * first * last)
