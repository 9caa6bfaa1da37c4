"""Score, divergence and Jacobian diagonal of the library's networks in closed form, and the gradient of a loss of them.

With d1 = sigma'(z1), d2 = sigma'(z2) of shapes (H1, n), (H2, n), weights (out, in), `*` element by element:

    one hidden layer, divergence     c . d1,  c_k = sum_i W1[k, i] W2[i, k]              n H beside the forward pass
    one hidden layer, diagonal       (W2 * W1^T) d1                                      n H d
    two hidden layers, divergence    d2 . ((W2 * (W1 W3)^T) d1)                          n H1 H2, and d H1 H2 once
    two hidden layers, diagonal      d2 . ((W2 * (W1[:, i] W3[i])^T) d1), n >= H1        n d H1 H2, and d H1 H2 once
    deeper, or fewer rows            tangents through the layers                         n d H^2 a layer
    deeper, divergence, d > H        the same from the first layer's H units, W1 W3      n H^3 a layer
    energy, one hidden layer         -(W * W)^T (a * sigma''(z))                         n H d
    energy, deeper                   -sum_l sum_k g_l sigma''(z_l) (dz_l / dx_i)^2       n d H^2 a layer

A route holds `precompute`, what the weights alone give, once for all rows, and `forward` and `pullback`, all over
`ismcore.ops.Ops` without a tape. The chain rule between them is applied here: forward, cotangents by the objective's formula,
pullback, the pullback of `precompute`. Nothing is registered as a framework's custom derivative, because
these lose second derivatives (torch.compile drops an autograd.Function's backward under torch.func) and forward mode.
"""

from ismcore.analytic.choice import find_route
from ismcore.analytic.gradient import loss, loss_and_gradient, score_and_diagonal, supports, transposed_weights
from ismcore.analytic.routes import Route

__all__ = ["Route", "find_route", "loss", "loss_and_gradient", "score_and_diagonal", "supports", "transposed_weights"]
