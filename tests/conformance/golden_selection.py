"""The part of tests/data/golden.json that the kit ships: run this file to write it anew."""

import json
from pathlib import Path

import ismcore.testing
from ismcore.testing.scenarios import GOLDEN

FULL = Path(__file__).parent.parent / "data" / "golden.json"
SHIPPED = Path(ismcore.testing.__file__).parent / "data" / "golden.json"
ABOUT = (
    "Selection of score networks from tests/data/golden.json as float64: psi, Jacobian, losses and parameter gradients, "
    "computed at 110 digits by recurrences and central differences, without automatic differentiation. Layer l computes "
    "z = W h + b, the activation follows every layer but the last; jac[n][i][j] = d psi_i / d x_j at sample n; "
    "regL = ism + L * mean_n sum_i jac_ii^2."
)


def floats(nested):
    if isinstance(nested, str):
        return float(nested)
    if isinstance(nested, dict):
        return {key: floats(value) for key, value in nested.items()}
    return [floats(value) for value in nested]


def selection():
    cases = {case["id"]: case for case in json.loads(FULL.read_text())["cases"]}
    chosen = {}
    for name, weight, _ in GOLDEN:
        case, loss = cases[name], f"reg{weight}" if weight else "ism"
        numbers = {key: floats(case[key]) for key in ("layers", "X", "psi", "jac")}
        answers = {key: {loss: floats(case[key][loss])} for key in ("loss", "grad")}
        chosen[name] = {"activation": case["activation"], "sizes": case["sizes"], **numbers, **answers}
    return {"about": ABOUT, "cases": chosen}


if __name__ == "__main__":
    SHIPPED.write_text(json.dumps(selection(), indent=None, separators=(",", ":")).replace('},"s', '},\n"s') + "\n")
