"""Muon for matrices, Adam for everything else, and an average of the weights.

Muon orthogonalises the momentum of each matrix. Matrices of one shape are stacked
over all layers, so a step is a handful of batched GEMMs.
"""
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .model import DiffusionGemmaMini

ADAM_NAMES = ("embed", "norm", "scalar", "router", "per_expert_scale")


def orthogonalise(g: Tensor, dtype: torch.dtype, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration on [batch, rows, cols]: singular values move to about one. Products are in `dtype`."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True) + 1e-7).to(x.dtype)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


def matrix_views(model: DiffusionGemmaMini, name: str, tensor: Tensor) -> list[Tensor]:
    """Splits a fused parameter into the single matrices that Muon treats as one each."""
    if name.endswith("experts_gate_up"):
        return [m for expert in tensor for m in expert.chunk(2)]
    if name.endswith("experts_down"):
        return list(tensor.unbind(1))
    if name.endswith("gate_up"):
        return list(tensor.chunk(2))
    if name.endswith("qkv"):
        c, full = model.config, model.config.is_full(int(name.split(".")[1]))
        kv = c.kv_heads(full) * c.dim_per_head(full)
        return list(tensor.split([tensor.shape[0] - kv * (1 if full else 2)] + [kv] * (1 if full else 2)))
    return [tensor]


class Optimiser:
    """Muon and Adam with one learning-rate multiplier for both.

    `views` splits a fused parameter of a name into its single matrices; without it each parameter is one. Parameters
    whose names have one of ADAM_NAMES in them, and all that are no matrices, are Adam's. `dtype` is that of Muon's
    products: bf16 where the processor has it, else fp32 is many times faster.
    """

    def __init__(self, model: nn.Module, views: Callable[[str, Tensor], list[Tensor]] = lambda _, tensor: [tensor],
                 muon_lr: float = 0.02, adam_lr: float = 3e-3, momentum: float = 0.95, weight_decay: float = 0.01,
                 betas: tuple[float, float] = (0.9, 0.98), dtype: torch.dtype = torch.bfloat16):
        self.muon_lr, self.adam_lr, self.momentum, self._dtype = muon_lr, adam_lr, momentum, dtype
        self.weight_decay, self.betas, self.count = weight_decay, betas, 0
        named = list(model.named_parameters())
        is_adam = lambda n, p: p.dim() < 2 or any(k in n for k in ADAM_NAMES)  # noqa: E731
        self.adam = [p for n, p in named if is_adam(n, p)]
        self.muon = [p for n, p in named if not is_adam(n, p)]
        self.state = {
            "m": [torch.zeros_like(p) for p in self.adam],
            "v": [torch.zeros_like(p) for p in self.adam],
            "momentum": [torch.zeros_like(p) for p in self.muon],
        }
        self._update = [torch.zeros_like(p) for p in self.muon]
        names = {p: n for n, p in named}
        groups: dict[tuple[int, ...], list[Tensor]] = {}
        for p, u in zip(self.muon, self._update):
            for view in views(names[p], u):
                groups.setdefault(tuple(view.shape), []).append(view)
        self._groups = list(groups.values())  # views into self._update

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """One update; `scale` multiplies both learning rates."""
        self.count += 1
        grads = [p.grad for p in self.muon]
        torch._foreach_lerp_(self.state["momentum"], grads, 1 - self.momentum)
        for u, g, m in zip(self._update, grads, self.state["momentum"]):
            u.copy_(g).lerp_(m, self.momentum)  # Nesterov
        for views in self._groups:
            rows, cols = views[0].shape
            stacked = orthogonalise(torch.stack(views), self._dtype) * max(1.0, rows / cols) ** 0.5
            for view, value in zip(views, stacked):
                view.copy_(value)
        lr = self.muon_lr * scale
        torch._foreach_mul_(self.muon, 1 - lr * self.weight_decay)
        torch._foreach_add_(self.muon, self._update, alpha=-lr)

        b1, b2 = self.betas
        grads = [p.grad for p in self.adam]
        torch._foreach_lerp_(self.state["m"], grads, 1 - b1)
        torch._foreach_mul_(self.state["v"], b2)
        torch._foreach_addcmul_(self.state["v"], grads, grads, 1 - b2)
        denominators = torch._foreach_sqrt(self.state["v"])
        torch._foreach_div_(denominators, (1 - b2**self.count) ** 0.5)
        torch._foreach_add_(denominators, 1e-8)
        torch._foreach_addcdiv_(self.adam, self.state["m"], denominators, -self.adam_lr * scale / (1 - b1**self.count))

    def state_dict(self) -> dict:
        return {"count": self.count, **self.state}

    def load_state_dict(self, saved: dict) -> None:
        self.count = saved["count"]
        for key, tensors in self.state.items():
            for mine, theirs in zip(tensors, saved[key], strict=True):
                mine.copy_(theirs)


class WeightAverage:
    """Exponential moving average of the weights with a warm-up; this is what gets published."""

    def __init__(self, model: nn.Module, decay: float = 0.998):
        self.decay, self.params = decay, list(model.parameters())
        self.average = [p.detach().clone() for p in self.params]

    @torch.no_grad()
    def update(self, step: int) -> None:
        torch._foreach_lerp_(self.average, self.params, 1 - min(self.decay, (1 + step) / (10 + step)))

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        for p, average in zip(model.parameters(), self.average, strict=True):
            p.copy_(average)
