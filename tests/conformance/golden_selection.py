"""The part of tests/data/golden.json that the kit ships: run this file to write it anew."""

import json
from pathlib import Path

import ismcore.testing
from ismcore.testing.scenarios import GOLDEN

FULL = Path(__file__).parent.parent / "data" / "golden.json"
SHIPPED = Path(ismcore.testing.__file__).parent / "data" / "golden.json"
ABOUT = (
    "Selection from tests/data/golden.json as float64: psi, Jacobian, losses and parameter gradients, "
    "computed at 110 digits by recurrences and central differences, without automatic differentiation. Layer l computes "
    "z = W h + b, the activation follows every layer but the last; of kind energy, the network is U and psi = -grad U; "
    "jac[n][i][j] = d psi_i / d x_j at sample n; regL = ism + L * mean_n sum_i jac_ii^2; with v = V[n], "
    "ssm = mean_n [v.jac v + 0.5 (v.psi)^2] and ssm_vr = mean_n [v.jac v + 0.5 |psi|^2]; with e = noise[n] and s = sigma_dsm, "
    "dsm = mean_n 0.5 |psi(x + s e) + e / s|^2."
)


def floats(nested):
    if isinstance(nested, str):
        return float(nested)
    if isinstance(nested, dict):
        return {key: floats(value) for key, value in nested.items()}
    return [floats(value) for value in nested]


BESIDE = {"ssm": ("V",), "ssm_vr": ("V",), "dsm": ("noise", "sigma_dsm")}
"""What enters a loss beside parameters and samples."""


def selection():
    cases = {case["id"]: case for case in json.loads(FULL.read_text())["cases"]}
    chosen = {}
    for name, loss, _ in GOLDEN:
        case = cases[name]
        shared = {key: case[key] for key in ("kind", "activation", "sizes")}
        entry = chosen.setdefault(name, {**shared, **{key: floats(case[key]) for key in ("layers", "X", "psi", "jac")}})
        entry |= {key: floats(case[key]) for key in BESIDE.get(loss, ())}
        for key in ("loss", "grad"):
            entry.setdefault(key, {})[loss] = floats(case[key][loss])
    return {"about": ABOUT, "cases": chosen}


if __name__ == "__main__":
    text = json.dumps(selection(), indent=None, separators=(",", ":"))
    SHIPPED.write_text(text.replace('},"s', '},\n"s').replace('},"e', '},\n"e') + "\n")
