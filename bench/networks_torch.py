"""Networks of torch for `bench/networks.py`."""

from __future__ import annotations

from functools import cache
from typing import Any

import ismcore_torch
import numpy as np
import torch
from networks import Case
from torch.nn.attention import SDPBackend, sdpa_kernel

import ismcore


def made(make: Any) -> Any:
    torch.manual_seed(0)
    return make()


def _score(model: Any) -> tuple[torch.nn.Module, Any]:
    """The network, made float64, and the score of a batch."""
    is_energy = isinstance(model, ismcore.Energy)
    net = (model.net if is_energy else model).double()
    inner = getattr(net, "_orig_mod", net)

    def score(x: torch.Tensor) -> torch.Tensor:
        if not is_energy:
            return net(x)
        at = x if x.requires_grad else x.detach().requires_grad_()
        return -torch.autograd.grad(net(at).sum(), at, create_graph=True)[0]

    if type(inner) is OneRow:
        return inner, torch.func.vmap(inner)
    return inner, score


def _trained(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def parameters(model: Any) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in _trained(_score(model)[0]).items()}


def right(model: Any, x: np.ndarray) -> tuple[float, dict[str, np.ndarray], np.ndarray]:
    net, score = _score(model)
    with sdpa_kernel(SDPBackend.MATH), torch.compiler.set_stance("force_eager"):
        rows = torch.tensor(x)
        jacobians = [torch.autograd.functional.jacobian(lambda r: score(r[None])[0], row, create_graph=True) for row in rows]
        diagonal = torch.stack([jacobian.diagonal() for jacobian in jacobians])
        psi = torch.cat([score(row[None]) for row in rows])
        loss = (0.5 * psi.square().sum(1) + diagonal.sum(1)).mean()
        trained = _trained(net)
        slopes = torch.autograd.grad(loss, list(trained.values()), materialize_grads=True)
    return loss.item(), {k: g.numpy() for k, g in zip(trained, slopes, strict=True)}, diagonal.detach().numpy()


def own_loss(model: Any, x: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
    net, score = _score(model)
    loss = ismcore_torch.implicit_score_matching(score, torch.tensor(x))
    loss.backward()
    slopes = {name: np.zeros(p.shape) if p.grad is None else p.grad.numpy() for name, p in _trained(net).items()}
    return loss.item(), slopes


def called(native: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    call = torch.func.vmap(native) if type(native) is OneRow else native
    with torch.compiler.set_stance("force_eager"):
        return call(torch.tensor(x)).detach().numpy()


def linear(a: int, b: int) -> torch.nn.Linear:
    return torch.nn.Linear(a, b)


def mlp(activation: Any, *norm: torch.nn.Module, out: int = 3) -> torch.nn.Module:
    return torch.nn.Sequential(linear(3, 8), *norm, activation, linear(8, out))


class Net(torch.nn.Module):
    """A network whose forward pass is a function of it and x, over layers, parameters and constants by name."""

    def __init__(self, step: Any, **parts: Any) -> None:
        super().__init__()
        self.step = step
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.step(self, x)


class OneRow(Net):
    """A function of one row."""


def two(step: Any, **parts: Any) -> torch.nn.Module:
    """Two linear layers, `a` (3 to 8) and `b` (8 to 3), and whatever else the step takes."""
    return Net(step, a=linear(3, 8), b=linear(8, 3), **parts)


def tokens(step: Any, width: int = 8, **parts: Any) -> torch.nn.Module:
    """Every column is a token: embedded by `e` with places `p`, and taken back by `o`; the step is (net, h) -> h."""

    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        return net.o(step(net, net.e(x[..., None]) + net.p))[..., 0]

    place = torch.nn.Parameter(0.3 * torch.randn(3, width))
    return Net(forward, e=linear(1, width), o=linear(width, 1), p=place, **parts)


def energy(net: torch.nn.Module) -> ismcore.Energy:
    return ismcore.Energy(net)


def parameter(*shape: int) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.linspace(0.5, 1.5, int(np.prod(shape))).reshape(shape))


# activations

SMOOTH = {
    "tanh": torch.nn.Tanh,
    "sigmoid": torch.nn.Sigmoid,
    "SiLU": torch.nn.SiLU,
    "GELU": torch.nn.GELU,
    "GELU (tanh)": lambda: torch.nn.GELU("tanh"),
    "Mish": torch.nn.Mish,
    "Softplus": torch.nn.Softplus,
    "LogSigmoid": torch.nn.LogSigmoid,
    "Tanhshrink": torch.nn.Tanhshrink,
    "Softmax of features": lambda: torch.nn.Softmax(dim=-1),
    "GLU": lambda: torch.nn.Sequential(linear(8, 16), torch.nn.GLU()),
    "SiLU in place": lambda: torch.nn.SiLU(inplace=True),
}
KINKED = {
    "ReLU": (torch.nn.ReLU, "piecewise linear"),
    "LeakyReLU": (torch.nn.LeakyReLU, "piecewise linear"),
    "PReLU": (torch.nn.PReLU, "piecewise linear"),
    "Hardtanh": (torch.nn.Hardtanh, "piecewise linear"),
    "max pooling": (lambda: torch.nn.Sequential(torch.nn.MaxPool1d(2), linear(4, 8)), "not smooth"),
}

# norms


def rms(net: Any, x: torch.Tensor) -> torch.Tensor:
    h = net.a(x).float()
    return net.b(torch.tanh(net.g * (h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype)))


# attention


def heads(**options: Any) -> Any:
    return lambda net, h: h + net.m(h, h, h, **options)[0]


def multihead() -> torch.nn.Module:
    return torch.nn.MultiheadAttention(8, 2, batch_first=True)


def by_hand(net: Any, h: torch.Tensor) -> torch.Tensor:
    q, k, v = net.q(h).chunk(3, -1)
    return h + torch.softmax(q @ k.transpose(1, 2) / 8**0.5, -1) @ v


def kernel(net: Any, h: torch.Tensor) -> torch.Tensor:
    return h + torch.nn.functional.scaled_dot_product_attention(*net.q(h).chunk(3, -1))


def causal(net: Any, h: torch.Tensor) -> torch.Tensor:
    return h + torch.nn.functional.scaled_dot_product_attention(*net.q(h).chunk(3, -1), is_causal=True)


def float32_softmax(net: Any, h: torch.Tensor) -> torch.Tensor:
    q, k, v = net.q(h).chunk(3, -1)
    return h + torch.softmax(q @ k.transpose(1, 2), -1, dtype=torch.float32).to(h.dtype) @ v


def encoder_layer(**options: Any) -> torch.nn.Module:
    return torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu", batch_first=True, **options)


def perceiver(net: Any, h: torch.Tensor) -> torch.Tensor:
    latent = net.latent.expand(len(h), -1, -1)
    return h + net.m(h, latent + net.m(latent, h, h)[0], h[:, :2], need_weights=False)[0]


def rotary(net: Any, x: torch.Tensor) -> torch.Tensor:
    z = torch.view_as_complex(torch.tanh(net.a(x)).reshape(-1, 4, 2)) * net.turns
    return net.b(torch.view_as_real(z).flatten(1))


def complex_buffer() -> torch.nn.Module:
    net = two(rotary)
    net.register_buffer("turns", torch.polar(torch.ones(4), torch.linspace(0.3, 1.2, 4)))
    return net


# convolutions


def as_image(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.body(x.reshape(-1, 1, 4, 4)).flatten(1)


class UNet(torch.nn.Module):
    def __init__(self, **up: Any) -> None:
        super().__init__()
        self.down = torch.nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.middle, self.last = torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.Conv2d(5, 1, 3, padding=1)
        self.up = up

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        image = x.reshape(-1, 1, 4, 4)
        h = torch.nn.functional.silu(self.middle(torch.nn.functional.silu(self.down(image))))
        h = torch.nn.functional.interpolate(h, scale_factor=2, **self.up)
        return self.last(torch.cat([image, h], 1)).flatten(1)


def image(*layers: torch.nn.Module) -> torch.nn.Module:
    return Net(as_image, body=torch.nn.Sequential(*layers))


def conv(a: int, b: int, **options: Any) -> torch.nn.Module:
    return torch.nn.Conv2d(a, b, 3, padding=1, **options)


def warped(net: Any, x: torch.Tensor) -> torch.Tensor:
    grid = torch.tanh(net.a(x)).reshape(-1, 2, 2, 2)
    return net.b(
        torch.nn.functional.grid_sample(net.table.expand(len(x), -1, -1, -1), grid, "bicubic", align_corners=True).flatten(1)
    )


# recurrent


def recurrent(kind: Any) -> torch.nn.Module:
    def step(net: Any, x: torch.Tensor) -> torch.Tensor:
        return net.o(net.r(x[..., None])[0])[..., 0]

    return Net(step, r=kind(1, 5, batch_first=True), o=linear(5, 1))


def cell(net: Any, x: torch.Tensor) -> torch.Tensor:
    h = torch.zeros(len(x), 8, dtype=x.dtype)
    for _ in range(3):
        h = net.r(x, h)
    return net.b(h)


def looped(net: Any, x: torch.Tensor) -> torch.Tensor:
    h = net.a(x)
    for _ in range(4):
        h = h + 0.3 * torch.tanh(net.m(h))
    return net.b(h)


# embeddings and implicit networks


def siren(w: float) -> Any:
    return lambda net, x: net.b(torch.sin(w * net.m(torch.sin(w / 3 * net.a(x)))))


def fourier(net: Any, x: torch.Tensor) -> torch.Tensor:
    angles = x @ net.waves
    return net.c(torch.tanh(net.b(torch.cat([angles.sin(), angles.cos()], -1))))


def with_buffer(step: Any, name: str, value: torch.Tensor, **parts: Any) -> torch.nn.Module:
    net = two(step, **parts)
    net.register_buffer(name, value)
    return net


def chosen_columns(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.b(torch.tanh(net.a(x) + net.table(net.columns).sum(0)))


# flows, energies, distributions


def coupling(net: Any, x: torch.Tensor) -> torch.Tensor:
    kept = x * net.mask
    log_scale, shift = net.b(torch.tanh(net.a(kept))).tanh(), net.d(torch.tanh(net.c(kept)))
    z = kept + (1 - net.mask) * (x * log_scale.exp() + shift)
    return 0.5 * z.square().sum(1) - ((1 - net.mask) * log_scale).sum(1)


def flow() -> torch.nn.Module:
    return with_buffer(coupling, "mask", torch.tensor([1.0, 0.0, 1.0]), c=linear(3, 8), d=linear(8, 3))


def mixture(net: Any, x: torch.Tensor) -> torch.Tensor:
    law = torch.distributions
    parts = law.Independent(law.Normal(net.means, net.log_scales.exp()), 1)
    return -law.MixtureSameFamily(law.Categorical(logits=net.logits), parts).log_prob(x)


def convex(net: Any, x: torch.Tensor) -> torch.Tensor:
    h = torch.nn.functional.softplus(net.a(x))
    return torch.nn.functional.softplus(h @ net.w.exp() + net.c(x)).sum(1) + 0.5 * x.square().sum(1)


def kernels(net: Any, x: torch.Tensor) -> torch.Tensor:
    gaps = torch.cdist(x, net.centres, compute_mode="use_mm_for_euclid_dist")
    return net.l(torch.exp(-gaps.square()))


def few_kernels(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.l(torch.exp(-torch.cdist(x, net.centres, compute_mode="donot_use_mm_for_euclid_dist").square()))


def gaussian(net: Any, x: torch.Tensor) -> torch.Tensor:
    factor = torch.tril(net.factor, -1) + torch.diag(net.factor.diagonal().exp())
    return -torch.distributions.MultivariateNormal(net.mean, scale_tril=factor).log_prob(x)


def rk4(net: Any, x: torch.Tensor) -> torch.Tensor:
    def slope(z: torch.Tensor) -> torch.Tensor:
        return net.b(torch.tanh(net.a(z)))

    for _ in range(3):
        k1 = slope(x)
        k2 = slope(x + k1 / 6)
        k3 = slope(x + k2 / 6)
        x = x + (k1 + 2 * k2 + 2 * k3 + slope(x + k3 / 3)) / 18
    return x


def spectrum(net: Any, x: torch.Tensor) -> torch.Tensor:
    h = net.a(x)
    symmetric = h[:, :4].reshape(-1, 2, 2) @ h[:, 4:].reshape(-1, 2, 2)
    values = torch.linalg.eigvalsh(symmetric + symmetric.mT + torch.diag(torch.tensor([0.0, 9.0]).to(x)))
    return net.c(values)


def in_fourier_space(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.b(torch.tanh(torch.fft.irfft(torch.fft.rfft(net.a(x)) * net.filter, n=8)))


# functions with a backward pass of their own


class OldTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return torch.tanh(x)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return g * (1 - torch.tanh(x) ** 2)


class NewTanh(torch.autograd.Function):
    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    backward = OldTanh.backward


class StraightThrough(OldTanh):
    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return g


class Reversed(torch.autograd.Function):
    """Computes its layers again in the backward pass, as reversible networks do."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, module: Any, *params: Any) -> torch.Tensor:
        ctx.module = module
        ctx.save_for_backward(x)
        with torch.no_grad():
            return module(x)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            at = x if x.requires_grad else x.detach().requires_grad_()
            weights = list(ctx.module.parameters())
            slopes = torch.autograd.grad(ctx.module(at), [at, *weights], g, create_graph=True)
        return slopes[0], None, *slopes[1:]


def checkpointed(**options: Any) -> Any:
    from torch.utils.checkpoint import checkpoint

    return lambda net, x: net.b(checkpoint(lambda h: torch.tanh(net.m(torch.tanh(h))), net.a(x), **options))


def offloaded(net: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.autograd.graph.save_on_cpu():
        return net.b(torch.tanh(net.a(x)))


def slope_of(at: Any) -> Any:
    def step(net: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            z = at(x)
            (slope,) = torch.autograd.grad(torch.nn.functional.softplus(net.a(z)).sum(), z, create_graph=True)
        return -slope

    return step


def own_gradient(net: Any, x: torch.Tensor) -> torch.Tensor:
    return -torch.func.grad(lambda z: torch.nn.functional.softplus(net.a(z)).sum())(x)


# situations


def gelu(x: torch.Tensor):
    return x * 0.5 * (1.0 + torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x)))


@cache
def scripted_gelu() -> Any:
    return torch.jit.script(gelu)  # deprecated, and in use all the same


def plain(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.b(torch.tanh(net.a(x)))


def hooked(**hooks: Any) -> torch.nn.Module:
    net = two(plain)
    for name, hook in hooks.items():
        getattr(net.a, f"register_{name}")(hook)
    return net


def masked_gradient() -> torch.nn.Module:
    net = two(plain)
    net.a.weight.register_hook(lambda g: g * 0.0)
    return net


def changed(make: Any, change: Any) -> Any:
    def made() -> torch.nn.Module:
        net = make()
        return change(net) or net

    return made


def closure(net: Any) -> None:
    net.step = lambda _, x: net.b(torch.tanh(net.a(x)))


def with_layer(layer: torch.nn.Module) -> torch.nn.Module:
    return two(lambda net, x: net.b(torch.tanh(net.layer(net.a(x)))), layer=layer)


class ActNorm(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift, self.begun = parameter(8), False

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        if not self.begun:
            self.shift.data, self.begun = -h.detach().mean(0), True
        return h + self.shift


class LazyBuffer(torch.nn.Module):
    def forward(self, h: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "angles"):
            self.register_buffer("angles", torch.linspace(0.0, 1.0, 8))
        return h + self.angles.to(h.dtype)


def lightning_like() -> torch.nn.Module:
    net = two(lambda net, x: net.b(torch.tanh(net.a(x))))
    net.calls = 0
    net.register_forward_hook(lambda module, inputs, output: setattr(module, "calls", module.calls + 1))
    return net


class Symmetric(torch.nn.Module):
    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return w.triu() + w.triu(1).mT


def frozen(net: Any) -> None:
    net[0].requires_grad_(False)


def parametrized(make: Any) -> Any:
    """A layer (8 to 8) seen through a parametrization, in evaluation mode."""
    return lambda: with_layer(make(linear(8, 8))).eval()


P, U = torch.nn.utils.parametrizations, torch.nn.utils


def symmetric(layer: torch.nn.Module) -> torch.nn.Module:
    torch.nn.utils.parametrize.register_parametrization(layer, "weight", Symmetric())
    return layer


def pruned(layer: torch.nn.Module) -> torch.nn.Module:
    from torch.nn.utils import prune

    return prune.random_unstructured(layer, "weight", amount=0.4)


def llama() -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaModel

    size = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 4}
    model = LlamaModel(LlamaConfig(**size, attn_implementation="eager"))
    model.embed_tokens.requires_grad_(False)
    return tokens(lambda net, h: net.m(inputs_embeds=h, use_cache=False).last_hidden_state, m=model)


def bert(attention: str) -> Any:
    def made() -> torch.nn.Module:
        from transformers import BertConfig, BertModel

        size = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 4}
        model = BertModel(BertConfig(**size, attn_implementation=attention), add_pooling_layer=False).eval()
        model.embeddings.word_embeddings.requires_grad_(False)
        return tokens(lambda net, h: net.m(inputs_embeds=h).last_hidden_state, m=model)

    return made


FLOAT32 = 1e-5
"""Of networks that compute a part in float32 wherever they are called."""

CASES = (
    *(Case("activations", name, lambda make=make: mlp(make())) for name, make in SMOOTH.items()),
    *(Case("activations", name, lambda make=make: mlp(make()), f"refused: {words}") for name, (make, words) in KINKED.items()),
    Case("activations", "Softplus as an energy", lambda: energy(mlp(torch.nn.Softplus(), out=1))),
    Case("activations", "SiLU as an energy", lambda: energy(mlp(torch.nn.SiLU(), out=1))),
    Case("norms", "LayerNorm", lambda: mlp(torch.nn.Tanh(), torch.nn.LayerNorm(8))),
    Case("norms", "RMSNorm", lambda: mlp(torch.nn.Tanh(), torch.nn.RMSNorm(8))),
    Case("norms", "GroupNorm", lambda: mlp(torch.nn.Tanh(), torch.nn.GroupNorm(2, 8))),
    Case("norms", "GroupNorm in an energy", lambda: energy(mlp(torch.nn.Tanh(), torch.nn.GroupNorm(1, 8), out=1))),
    Case(
        "norms",
        "LayerNorm in an energy",
        lambda: energy(mlp(torch.nn.Tanh(), torch.nn.LayerNorm(8), out=1)),
        "refused: GroupNorm(1, n)",
    ),
    Case(
        "norms",
        "InstanceNorm",
        lambda: Net(
            lambda net, x: net.o(torch.tanh(net.n(net.c(x[:, None])))).flatten(1)[:, :3],
            c=torch.nn.Conv1d(1, 4, 1),
            n=torch.nn.InstanceNorm1d(4),
            o=torch.nn.Conv1d(4, 1, 1),
        ),
    ),
    Case("norms", "BatchNorm in evaluation mode", lambda: mlp(torch.nn.Tanh(), torch.nn.BatchNorm1d(8)).eval()),
    Case(
        "norms", "BatchNorm in training mode", lambda: mlp(torch.nn.Tanh(), torch.nn.BatchNorm1d(8)), "refused: mixes the rows"
    ),
    Case("norms", "RMSNorm in float32", lambda: two(rms, g=parameter(8)), near=FLOAT32),
    Case("norms", "normalised to length 1", lambda: two(lambda net, x: net.b(torch.nn.functional.normalize(net.a(x), dim=-1)))),
    Case("attention", "MultiheadAttention", lambda: tokens(heads(need_weights=False), m=multihead())),
    Case("attention", "MultiheadAttention with weights", lambda: tokens(heads(need_weights=True), m=multihead())),
    Case("attention", "by hand", lambda: tokens(by_hand, q=linear(8, 24))),
    Case("attention", "scaled_dot_product_attention", lambda: tokens(kernel, q=linear(8, 24))),
    Case("attention", "causal", lambda: tokens(causal, q=linear(8, 24))),
    Case("attention", "softmax in float32", lambda: tokens(float32_softmax, q=linear(8, 24)), near=FLOAT32),
    Case("attention", "TransformerEncoderLayer", lambda: tokens(lambda net, h: net.t(h), t=encoder_layer())),
    Case(
        "attention",
        "norm_first, evaluation mode",
        lambda: tokens(lambda net, h: net.t(h), t=encoder_layer(norm_first=True)).eval(),
    ),
    Case(
        "attention",
        "TransformerEncoder",
        lambda: tokens(lambda net, h: net.t(h), t=torch.nn.TransformerEncoder(encoder_layer(), 2, enable_nested_tensor=False)),
    ),
    Case(
        "attention",
        "TransformerDecoderLayer",
        lambda: tokens(
            lambda net, h: net.t(h, h[:, :2]),
            t=torch.nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, activation="gelu", batch_first=True),
        ),
    ),
    Case("attention", "cross-attention to latents", lambda: tokens(perceiver, m=multihead(), latent=parameter(1, 2, 8))),
    Case(
        "attention",
        "an encoder with dropout",
        lambda: tokens(
            lambda net, h: net.t(h), t=torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
        ),
        "refused: Dropout",
    ),
    Case("attention", "rotary, a complex buffer", complex_buffer, near=1e-6),
    Case(
        "attention",
        "softmax over rows",
        lambda: two(lambda net, x: torch.softmax(plain(net, x), 0) * x),
        "refused: mixes the rows",
    ),
    Case("attention", "Hugging Face Llama", llama, near=FLOAT32, needs="transformers"),
    Case("attention", "Hugging Face Bert (eager)", bert("eager"), needs="transformers"),
    Case("attention", "Hugging Face Bert (sdpa)", bert("sdpa"), needs="transformers"),
    Case("convolutions", "Conv2d", lambda: image(conv(1, 4), torch.nn.SiLU(), conv(4, 1)), d=16),
    Case(
        "convolutions",
        "Conv2d with GroupNorm",
        lambda: image(conv(1, 4), torch.nn.GroupNorm(2, 4), torch.nn.SiLU(), conv(4, 1)),
        d=16,
    ),
    Case(
        "convolutions",
        "dilated, grouped",
        lambda: image(
            conv(1, 4), torch.nn.Tanh(), torch.nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4), torch.nn.Tanh(), conv(4, 1)
        ),
        d=16,
    ),
    Case(
        "convolutions",
        "circular padding",
        lambda: image(conv(1, 4, padding_mode="circular"), torch.nn.SiLU(), conv(4, 1)),
        d=16,
    ),
    Case(
        "convolutions",
        "ConvTranspose2d",
        lambda: image(torch.nn.Conv2d(1, 4, 2, stride=2), torch.nn.SiLU(), torch.nn.ConvTranspose2d(4, 1, 2, stride=2)),
        d=16,
    ),
    Case(
        "convolutions",
        "average pooling",
        lambda: image(conv(1, 4), torch.nn.SiLU(), torch.nn.AvgPool2d(2), torch.nn.Flatten(), linear(16, 16)),
        d=16,
    ),
    Case(
        "convolutions",
        "PixelShuffle",
        lambda: image(torch.nn.Conv2d(1, 4, 2, stride=2), torch.nn.SiLU(), torch.nn.PixelShuffle(2)),
        d=16,
    ),
    Case("convolutions", "U-Net, nearest", lambda: UNet(mode="nearest"), d=16),
    Case("convolutions", "U-Net, bilinear", lambda: UNet(mode="bilinear"), d=16),
    Case("convolutions", "U-Net, bicubic", lambda: UNet(mode="bicubic"), d=16),
    Case(
        "convolutions",
        "Conv1d in an energy",
        lambda: energy(
            Net(
                lambda net, x: net.body(x[:, None]).flatten(1).sum(1),
                body=torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3, padding=1), torch.nn.Softplus(), torch.nn.Conv1d(4, 1, 3)),
            )
        ),
    ),
    Case("convolutions", "filters in Fourier space", lambda: two(in_fourier_space, filter=parameter(5))),
    Case(
        "convolutions",
        "bicubic sampling of a table",
        lambda: Net(warped, a=linear(3, 8), b=linear(8, 3), table=parameter(1, 2, 4, 4)),
    ),
    Case("recurrent", "LSTM", lambda: recurrent(torch.nn.LSTM)),
    Case("recurrent", "GRU", lambda: recurrent(torch.nn.GRU)),
    Case("recurrent", "RNN", lambda: recurrent(torch.nn.RNN)),
    Case("recurrent", "GRUCell in a loop", lambda: two(cell, r=torch.nn.GRUCell(3, 8))),
    Case("recurrent", "a layer called four times", lambda: two(looped, m=linear(8, 8))),
    Case(
        "recurrent",
        "GRU in an energy",
        lambda: energy(
            Net(
                lambda net, x: net.o(net.r(x[..., None])[0][:, -1]).sum(1),
                r=torch.nn.GRU(1, 5, batch_first=True),
                o=linear(5, 1),
            )
        ),
    ),
    Case("implicit", "SIREN", lambda: two(siren(6.0), m=linear(8, 8))),
    Case("implicit", "SIREN, w0 = 30", lambda: two(siren(30.0), m=linear(8, 8))),
    Case(
        "implicit",
        "Fourier features, a buffer",
        lambda: Net(fourier, b=linear(16, 8), c=linear(8, 3), waves=torch.nn.Buffer(torch.randn(3, 8))),
    ),
    Case(
        "implicit",
        "Fourier features, a frozen parameter",
        lambda: Net(fourier, b=linear(16, 8), c=linear(8, 3), waves=torch.nn.Parameter(torch.randn(3, 8), requires_grad=False)),
    ),
    Case(
        "implicit",
        "embedding of columns, an integer buffer",
        lambda: with_buffer(chosen_columns, "columns", torch.tensor([0, 2, 1]), table=torch.nn.Embedding(3, 8)),
    ),
    Case(
        "implicit",
        "a mask, a boolean buffer",
        lambda: with_buffer(
            lambda net, x: net.b(torch.where(net.mask, torch.tanh(net.a(x)), net.a(x))), "mask", torch.arange(8) % 2 == 0
        ),
    ),
    Case("flows", "affine coupling as an energy", lambda: energy(flow())),
    Case(
        "flows",
        "mixture of normal laws as an energy",
        lambda: energy(
            Net(
                mixture,
                means=torch.nn.Parameter(torch.randn(4, 3)),
                log_scales=torch.nn.Parameter(0.1 * torch.randn(4, 3)),
                logits=parameter(4),
            )
        ),
    ),
    Case(
        "flows",
        "input-convex energy",
        lambda: energy(Net(convex, a=linear(3, 8), c=linear(3, 5), w=torch.nn.Parameter(0.3 * torch.randn(8, 5)))),
    ),
    Case(
        "flows",
        "MultivariateNormal as an energy",
        lambda: energy(Net(gaussian, mean=parameter(3), factor=torch.nn.Parameter(0.3 * torch.randn(3, 3)))),
    ),
    Case("flows", "Runge-Kutta steps", lambda: two(rk4)),
    Case(
        "flows",
        "kernels by cdist of products",
        lambda: Net(kernels, centres=torch.nn.Parameter(torch.randn(6, 3)), l=linear(6, 3)),
    ),
    Case(
        "flows",
        "kernels by cdist",
        lambda: Net(few_kernels, centres=torch.nn.Parameter(torch.randn(6, 3)), l=linear(6, 3)),
        "refused: use_mm_for_euclid_dist",
    ),
    Case("flows", "eigenvalues", lambda: Net(spectrum, a=linear(3, 8), c=linear(2, 3))),
    Case("parametrised", "weight_norm", parametrized(P.weight_norm)),
    Case("parametrised", "spectral_norm in evaluation mode", parametrized(P.spectral_norm)),
    Case("parametrised", "orthogonal", parametrized(P.orthogonal)),
    Case("parametrised", "a parametrization of one's own", parametrized(symmetric)),
    Case(
        "parametrised",
        "spectral_norm in training mode",
        lambda: with_layer(P.spectral_norm(linear(8, 8))),
        "refused: module.eval()",
    ),
    Case("parametrised", "old spectral_norm in evaluation mode", parametrized(lambda layer: U.spectral_norm(layer))),
    Case("parametrised", "old weight_norm", parametrized(lambda layer: U.weight_norm(layer))),
    Case("parametrised", "pruned", parametrized(pruned)),
    Case(
        "parametrised",
        "tied weights",
        lambda: Net(lambda net, x: torch.nn.functional.linear(torch.tanh(net.a(x)), net.a.weight.T), a=linear(3, 8)),
    ),
    Case("parametrised", "a frozen layer", changed(lambda: mlp(torch.nn.Tanh()), frozen)),
    Case(
        "parametrised",
        "ParameterList and ModuleDict",
        lambda: Net(
            lambda net, x: net.m["b"](net.g[0] * torch.tanh(net.m["a"](x)) + net.g[1]),
            m=torch.nn.ModuleDict({"a": linear(3, 8), "b": linear(8, 3)}),
            g=torch.nn.ParameterList([parameter(8), parameter(8)]),
        ),
    ),
    Case(
        "parametrised",
        "a complex parameter",
        lambda: two(lambda net, x: plain(net, x) * net.c.abs(), c=torch.nn.Parameter(torch.tensor(1.0 + 1.0j))),
        "refused: complex",
    ),
    Case("computed again", "checkpoint", lambda: two(checkpointed(use_reentrant=False), m=linear(8, 8))),
    Case(
        "computed again",
        "checkpoint, reentrant",
        lambda: two(checkpointed(use_reentrant=True), m=linear(8, 8)),
        "refused: use_reentrant=False",
    ),
    Case(
        "computed again",
        "checkpoint in an energy",
        lambda: energy(two(lambda net, x: checkpointed(use_reentrant=False)(net, x).sum(1), m=linear(8, 8))),
    ),
    Case(
        "computed again",
        "reversible layers",
        lambda: Net(lambda net, x: Reversed.apply(x, net.m, *net.m.parameters()), m=mlp(torch.nn.Tanh())),
    ),
    Case("computed again", "save_on_cpu", lambda: two(offloaded)),
    Case("own backward", "autograd.Function", lambda: two(lambda net, x: net.b(NewTanh.apply(net.a(x))))),
    Case("own backward", "autograd.Function, old style", lambda: two(lambda net, x: net.b(OldTanh.apply(net.a(x))))),
    Case(
        "own backward",
        "straight-through",
        lambda: two(lambda net, x: net.b(StraightThrough.apply(net.a(x)))),
        "refused: cut off",
    ),
    Case("own backward", "backward hook", lambda: hooked(full_backward_hook=lambda *_: None)),
    Case("own backward", "forward hook", lambda: hooked(forward_hook=lambda module, inputs, output: output * 1.5)),
    Case("own backward", "forward pre-hook", lambda: hooked(forward_pre_hook=lambda module, inputs: (inputs[0] * 0.7,))),
    Case(
        "own backward",
        "a hook that halves gradients",
        lambda: hooked(full_backward_hook=lambda module, before, after: tuple(None if g is None else 0.5 * g for g in before)),
        "refused: differentiated in x to something else",
    ),
    Case("own backward", "gradient of a parameter masked", masked_gradient, "refused: register_hook"),
    Case("own gradient", "torch.func.grad", lambda: Net(own_gradient, a=linear(3, 8))),
    Case(
        "own gradient",
        "autograd.grad at a view of x",
        lambda: Net(slope_of(lambda x: x.view_as(x) if x.requires_grad else x.detach().requires_grad_()), a=linear(3, 8)),
    ),
    Case(
        "own gradient",
        "autograd.grad after x.requires_grad_()",
        lambda: Net(slope_of(lambda x: x.requires_grad_()), a=linear(3, 8)),
    ),
    Case(
        "own gradient",
        "autograd.grad at a detached x",
        lambda: Net(slope_of(lambda x: x.detach().requires_grad_()), a=linear(3, 8)),
        "refused: cut off",
    ),
    Case(
        "cut off",
        "no_grad",
        lambda: two(lambda net, x: net.b(torch.tanh(net.a(x) * torch.no_grad()(torch.sin)(x[:, :1])))),
        "refused: cut off",
    ),
    Case(
        "cut off",
        "a detached norm",
        lambda: two(lambda net, x: plain(net, x / (1 + x.detach().square().sum(1, keepdim=True)))),
        "refused: cut off",
    ),
    Case(
        "cut off",
        "weights copied once",
        changed(
            lambda: two(lambda net, x: torch.tanh(x @ net.w.to(x.dtype))),
            lambda net: setattr(net, "w", net.a.weight.detach()[:3].clone().T),
        ),
        "refused: no parameter has any effect",
    ),
    Case("cut off", "a closure over the module", changed(lambda: two(plain), closure), "refused: by a closure"),
    Case(
        "random", "dropout in training mode", lambda: mlp(torch.nn.Tanh(), torch.nn.Dropout(0.2)), "refused: in training mode"
    ),
    Case("random", "dropout in evaluation mode", lambda: mlp(torch.nn.Tanh(), torch.nn.Dropout(0.2)).eval()),
    Case(
        "random",
        "F.dropout",
        lambda: two(lambda net, x: torch.nn.functional.dropout(plain(net, x), 0.1)),
        "refused: draws random numbers",
    ),
    Case("state", "ActNorm at its first call", lambda: with_layer(ActNorm()), "refused: initialisation from the first"),
    Case("state", "a buffer made at the first call", lambda: with_layer(LazyBuffer()), "refused: call it once"),
    Case(
        "state",
        "lazy layers",
        lambda: torch.nn.Sequential(torch.nn.LazyLinear(8), torch.nn.Tanh(), torch.nn.LazyLinear(3)),
        "refused: call it once",
    ),
    Case("state", "a counter of calls", lightning_like),
    Case("state", "AveragedModel", lambda: torch.optim.swa_utils.AveragedModel(mlp(torch.nn.Tanh()))),
    Case("state", "on the meta device", lambda: torch.nn.Linear(3, 3, device="meta"), "refused: meta"),
    Case("state", "bfloat16", lambda: mlp(torch.nn.Tanh()).to(torch.bfloat16)),
    Case("compiled", "torch.compile", lambda: torch.compile(mlp(torch.nn.Tanh()))),
    Case(
        "compiled",
        "a compiled part",
        lambda: two(lambda net, x: net.b(net.m(net.a(x))), m=torch.compile(torch.nn.Sequential(torch.nn.Tanh(), linear(8, 8)))),
    ),
    Case("compiled", "a scripted activation", lambda: two(lambda net, x: net.b(scripted_gelu()(net.a(x))))),
    Case(
        "compiled",
        "a scripted layer",
        lambda: with_layer(torch.jit.script(mlp(torch.nn.Tanh(), out=8)[1:])),
        "refused: scripted",
    ),
    Case("compiled", "scripted", lambda: torch.jit.script(mlp(torch.nn.Tanh())), "refused: scripted"),
    Case("compiled", "traced", lambda: torch.jit.trace(mlp(torch.nn.Tanh()), torch.zeros(2, 3)), "refused: traced"),
    Case("compiled", "DataParallel", lambda: torch.nn.DataParallel(mlp(torch.nn.Tanh())), "refused: its .module"),
    Case(
        "one row",
        "a function of one row",
        lambda: OneRow(
            lambda net, x: net.b @ torch.tanh(net.a @ x),
            a=torch.nn.Parameter(torch.randn(8, 3)),
            b=torch.nn.Parameter(torch.randn(3, 8)),
        ),
    ),
    Case(
        "one row",
        "a function of one row that takes a batch too",
        lambda: two(lambda net, x: plain(net, x) * torch.exp(-x.square().sum() / 8)),
        "refused: mixes the rows",
    ),
    Case("one row", "a tuple", lambda: two(lambda net, x: (plain(net, x), x)), "refused: tuple"),
    Case("one row", "an energy where a score is wanted", lambda: mlp(torch.nn.Tanh(), out=1), "refused: Energy"),
)
