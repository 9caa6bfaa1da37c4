"""Makes tests/data/golden_edges.json: the weighted objective J_h to 50 digits, by mpmath and central differences alone.

    J_h = sum_n w_n sum_i [ 1/2 h_i psi_i^2 + h_i d_i psi_i + psi_i d_i h_i + lambda h_i (d_i psi_i)^2 ]

Nothing of ismcore is imported. Networks are evaluated by their recurrence; h by its definition, min(distance / width, 1); every
derivative, that of a network, that of h and that of J_h in each parameter, is a central difference at 120 digits: its error is
the square of the step, 1e-50 or less. Run it to write the file anew: it takes some minutes.
"""

import json
import random
from itertools import pairwise
from pathlib import Path

from mpmath import exp, log1p, mp, mpf, nstr, sqrt, tanh

mp.dps = 120
INNER, OUTER = mpf(10) ** -30, mpf(10) ** -26
ACTIVATIONS = {
    "tanh": tanh,
    "sigmoid": lambda z: 1 / (1 + exp(-z)),
    "softplus": lambda z: log1p(exp(z)),
    "silu": lambda z: z / (1 + exp(-z)),
}


def network(layers, activation, x):
    h = x
    for number, (weight, bias) in enumerate(layers):
        h = [sum((w * v for w, v in zip(row, h, strict=True)), b) for row, b in zip(weight, bias, strict=True)]
        if number < len(layers) - 1:
            h = [ACTIVATIONS[activation](v) for v in h]
    return h


def moved(x, i, step):
    return [v + step if j == i else v for j, v in enumerate(x)]


def score(case, layers, x):
    """psi(x); of an energy U it is minus the central difference of U."""
    if case["kind"] == "score":
        return network(layers, case["activation"], x)
    step = mpf(10) ** -35
    ends = [[network(layers, case["activation"], moved(x, i, sign * step))[0] for sign in (1, -1)] for i in range(len(x))]
    return [(before - after) / (2 * step) for after, before in ends]


def weight_of(domain, x, i):
    """h_i at x."""
    width = [mpf(w) for w in domain["width"]]
    if "A" not in domain:
        lower, upper = domain["lower"][i], domain["upper"][i]
        distances = ([] if lower is None else [x[i] - mpf(lower)]) + ([] if upper is None else [mpf(upper) - x[i]])
        return min([v / width[i] for v in distances] + [mpf(1)])
    faces = []
    for row, b in zip(domain["A"], domain["b"], strict=True):
        normal = [mpf(a) for a in row]
        slack = mpf(b) - sum(a * v for a, v in zip(normal, x, strict=True))
        faces.append(slack / sqrt(sum((a * w) ** 2 for a, w in zip(normal, width, strict=True))))
    return min([*faces, mpf(1)])


def loss(case, layers):
    total, shares = mpf(0), case.get("row_weight")
    for n, row in enumerate(case["X"]):
        x, term = [mpf(v) for v in row], mpf(0)
        psi = score(case, layers, x)
        for i in range(len(x)):
            after, before = moved(x, i, INNER), moved(x, i, -INNER)
            slope = (score(case, layers, after)[i] - score(case, layers, before)[i]) / (2 * INNER)
            h = weight_of(case["domain"], x, i)
            h_slope = (weight_of(case["domain"], after, i) - weight_of(case["domain"], before, i)) / (2 * INNER)
            term += h * psi[i] ** 2 / 2 + h * slope + psi[i] * h_slope + mpf(case["curvature_weight"]) * h * slope**2
        total += term * (mpf(1) / len(case["X"]) if shares is None else mpf(shares[n]))
    return total


def gradient(case):
    """dJ/dtheta of every weight and bias, in the shapes of the layers."""

    def at(number, place, step):
        layers = [([[mpf(v) for v in row] for row in layer["W"]], [mpf(v) for v in layer["b"]]) for layer in case["layers"]]
        weight, bias = layers[number]
        if len(place) == 2:
            weight[place[0]][place[1]] += step
        else:
            bias[place[0]] += step
        return loss(case, layers)

    def slope(number, *place):
        return nstr((at(number, place, OUTER) - at(number, place, -OUTER)) / (2 * OUTER), 50)

    return [
        {
            "W": [[slope(number, o, i) for i in range(len(row))] for o, row in enumerate(layer["W"])],
            "b": [slope(number, o) for o in range(len(layer["b"]))],
        }
        for number, layer in enumerate(case["layers"])
    ]


HALF_LINE = {"lower": ["0"], "upper": [None], "width": ["0.7"]}
ORTHANT = {"lower": ["0", "0", "0"], "upper": [None, None, None], "width": ["0.7", "0.9", "1.1"]}
BOX = {"lower": ["-0.125", "0"], "upper": ["1.5", "2.125"], "width": ["0.3", "0.45"]}
MIXED = {"lower": ["0", None, "-0.5"], "upper": [None, None, "2.25"], "width": ["0.7", "0.35", "0.9"]}
TRIANGLE = {"A": [["-1", "0"], ["0", "-1"], ["0.75", "1"]], "b": ["0", "0", "4.125"], "width": ["0.7", "0.3"]}
CONE = {"A": [["-1", "-1", "0.25"], ["0", "-1", "-0.5"]], "b": ["0.375", "0.125"], "width": ["1.3", "0.9", "1.7"]}
CASES = (
    ("half-line", "score", "silu", (1, 4, 1), HALF_LINE, "0", 6),
    ("half-line-penalised", "score", "tanh", (1, 3, 1), HALF_LINE, "0.75", 6),
    ("orthant", "score", "tanh", (3, 4, 3), ORTHANT, "0", 5),
    ("orthant-penalised", "score", "softplus", (3, 4, 3), ORTHANT, "0.1", 5),
    ("box-two-hidden", "score", "sigmoid", (2, 3, 3, 2), BOX, "0", 5),
    ("box-two-hidden-penalised", "score", "silu", (2, 3, 3, 2), BOX, "0.75", 5),
    ("mixed-ends", "score", "silu", (3, 4, 3), MIXED, "0", 5),
    ("mixed-ends-weighted", "score", "tanh", (3, 3, 3), MIXED, "0.25", 5),
    ("triangle", "score", "silu", (2, 4, 2), TRIANGLE, "0", 5),
    ("triangle-penalised", "score", "tanh", (2, 3, 2), TRIANGLE, "0.75", 5),
    ("triangle-two-hidden", "score", "softplus", (2, 3, 2, 2), TRIANGLE, "0", 5),
    ("cone-weighted", "score", "tanh", (3, 4, 3), CONE, "0", 5),
    ("triangle-three-hidden", "score", "tanh", (2, 2, 3, 2, 2), TRIANGLE, "0", 4),
    ("orthant-energy", "energy", "softplus", (3, 4, 1), ORTHANT, "0", 4),
    ("box-energy-penalised", "energy", "tanh", (2, 2, 2, 1), BOX, "0.1", 4),
    ("triangle-energy", "energy", "silu", (2, 3, 1), TRIANGLE, "0", 4),
)


def made(name, kind, activation, sizes, domain, curvature_weight, n):
    rng = random.Random(name)  # noqa: S311  (numbers to test with)
    d = sizes[0]

    def eighths(low, high):
        return str(rng.randint(low, high) / 8)

    layers = [
        {"W": [[eighths(-9, 9) for _ in range(a)] for _ in range(b)], "b": [eighths(-4, 4) for _ in range(b)]}
        for a, b in pairwise(sizes)
    ]
    case = {"id": name, "kind": kind, "activation": activation, "sizes": sizes, "domain": domain}
    case |= {
        "curvature_weight": curvature_weight,
        "layers": layers,
        "X": [[eighths(1, 11) for _ in range(d)] for _ in range(n)],
    }
    if name.endswith("weighted"):
        case["row_weight"] = ["0.5", "0", "0.125", "0.25", "0.125"]
    plain = [([[mpf(v) for v in row] for row in layer["W"]], [mpf(v) for v in layer["b"]]) for layer in layers]
    return case | {"loss": nstr(loss(case, plain), 50), "gradient": gradient(case)}


if __name__ == "__main__":
    path = Path(__file__).parent / "data" / "golden_edges.json"
    text = json.dumps({"about": __doc__, "cases": [made(*case) for case in CASES]})
    path.write_text(text.replace('{"id"', '\n{"id"') + "\n")
