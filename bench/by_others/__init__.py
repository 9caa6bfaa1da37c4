"""Other people's libraries, where they are installed: programs of a case as in `by_hand`, and never a dependency.

| program | is |
|---|---|
| ebmkit | `ExactScoreMatching` of an energy: one reverse pass for each dimension |
| torchebm | `ScoreMatching(hessian_method="exact")` of an energy: `vmap(jacrev)` of the gradient |
| toy-gradlogp | `Trainer.get_loss`, "ssm-vr", of an energy: one Rademacher probe a row |
| coreax | `SlicedScoreMatching.match` of its `ScoreNetwork`, as shipped: it compiles every step |
| coreax, patched | the same, its first step an array: it compiles once in each call |

A library is imported by the first run of its program, so that one that cannot be imported leaves the others of a cell alone.
"""

from importlib.util import find_spec

MODULES = {"ebmkit": "ebm", "torchebm": "torchebm", "toy-gradlogp": "toy_gradlogp", "coreax": "coreax"}
"""What each is imported as, by its name in the package index."""
PROGRAMS = {"torch": ("ebmkit", "torchebm", "toy-gradlogp"), "jax": ("coreax", "coreax, patched")}
EXACT = ("ebmkit", "torchebm")
COMPILED = ("coreax, patched",)


def installed():
    """Those that are here, found without importing them."""
    return tuple(name for name, module in MODULES.items() if find_spec(module))


def names(case, backend):
    """Programs of a cell: those in torch take energies, and those in JAX networks that are the score."""
    if case.energy != (backend == "torch"):
        return []
    here = installed()
    return [name for name in PROGRAMS.get(backend, ()) if name.partition(",")[0] in here]


def is_known(name, case):
    """Whether its losses are: exact ones, and in one dimension those of a Rademacher probe from the same parameters."""
    return name in EXACT or (name == "toy-gradlogp" and case.d == 1)
