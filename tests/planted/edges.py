"""Faults of the weighted objective on a domain, planted in HIPS-autograd's loss and gradient."""

from dataclasses import replace

import numpy as np
from ismcore_autograd.backend import AutogradBackend

from ismcore import ImplicitScoreMatching
from planted.faults import Table, fault

OWN: Table = {}


def with_inputs(change):
    """HIPS-autograd whose losses are told changed weights of the edges."""

    def asarrays(self, tree):
        return AutogradBackend.asarrays(self, {**tree, **change(tree)} if "edge_weight" in tree else tree)

    return type("Planted", (AutogradBackend,), {"asarrays": asarrays})


@fault(OWN, "check_gradient")
def slope_of_the_weight_left_out():
    """On a domain the term psi_i d_i h_i is left out."""
    return with_inputs(lambda inputs: {"edge_slope": 0.0 * inputs["edge_slope"]})


@fault(OWN, "check_loss")
def slope_of_the_weight_with_a_wrong_sign():
    """On a domain the term psi_i d_i h_i is subtracted."""
    return with_inputs(lambda inputs: {"edge_slope": -inputs["edge_slope"]})


@fault(OWN, "check_gradient")
def weight_of_the_first_column_for_all():
    """On a domain all columns have the weight of the first."""
    return with_inputs(lambda inputs: {"edge_weight": inputs["edge_weight"][:, :1] + 0.0 * inputs["edge_slope"]})


class PenaltyWithoutWeight(ImplicitScoreMatching):
    """lambda (d_i psi_i)^2 in the place of lambda h_i (d_i psi_i)^2."""

    @staticmethod
    def row_terms(ops, psi, diagonal, inputs):
        plain = {name: value for name, value in inputs.items() if name != "curvature_weight"}
        terms = ImplicitScoreMatching.row_terms(ops, psi, diagonal, plain)
        return terms + ops.sum(inputs["curvature_weight"] * diagonal * diagonal, axis=1)


@fault(OWN, "check_weighted_divergence")
def penalty_without_the_weight():
    """On a domain the curvature penalty is not weighted."""

    def loss_and_gradient(self, loss):
        objective = loss.objective
        if getattr(objective, "domain", None) is not None and objective.penalised:
            wrong = PenaltyWithoutWeight(objective.curvature_weight, "nested", objective.domain)
            loss = replace(loss, objective=wrong)
        return AutogradBackend.loss_and_gradient(self, loss)

    return type("Planted", (AutogradBackend,), {"loss_and_gradient": loss_and_gradient})


@fault(OWN, "check_weighted_divergence")
def row_weights_without_the_edges():
    """On a domain rows that have weights lose that of the edges."""
    return with_inputs(lambda inputs: {"edge_weight": np.ones_like(inputs["edge_weight"])} if "row_weight" in inputs else {})
