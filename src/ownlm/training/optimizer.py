"""Muon for the matrices of the blocks, AdamW for everything else; state that can be saved without pickling.

Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers"): momentum, then the update's singular values are
brought near one by five Newton–Schulz iterations. Equal shapes are iterated together as one batched product, which
is what makes it cheap on a CPU; `tests/training/test_optimizer.py` holds it against `torch.optim.Muon`.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from ownlm.model.transformer import Transformer

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic coefficients of the same source
MOMENTUM = 0.95
BETAS, EPS = (0.9, 0.95), 1e-8  # short memory of squares: runs here are hundreds to thousands of steps


class Optimizer:
    """Both parts behind one `step`.

    Args:
        model: its 2-D block weights go to Muon, embeddings, head, norms and biases to AdamW.
        learning_rate: peak of AdamW. muon_learning_rate: peak of Muon.
        weight_decay: decoupled, on Muon's matrices and AdamW's 2-D weights.
        iteration_dtype: of the Newton–Schulz products (bf16 where it pays; the iteration tolerates it).
    """

    def __init__(
        self,
        model: Transformer,
        learning_rate: float,
        muon_learning_rate: float,
        weight_decay: float,
        iteration_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.muon_peak, self.weight_decay, self.iteration_dtype = (
            muon_learning_rate,
            weight_decay,
            iteration_dtype,
        )
        self.adam_peak = learning_rate
        self.matrices: dict[str, nn.Parameter] = {}
        others: dict[str, nn.Parameter] = {}
        for name, parameter in model.named_parameters():
            (self.matrices if name.startswith("blocks.") and parameter.ndim == 2 else others)[name] = (
                parameter
            )
        self.momentum = {name: torch.zeros_like(p) for name, p in self.matrices.items()}
        self.others = others
        decayed = [p for p in others.values() if p.ndim == 2]
        plain = [p for p in others.values() if p.ndim != 2]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, eps=EPS, fused=True)

    def step(self, factor: float) -> None:
        """One update with learning rates of `factor` times their peaks, from the gradients in `.grad`."""
        for group in self.adamw.param_groups:
            group["lr"] = self.adam_peak * factor
        self.adamw.step()
        self._muon_step(self.muon_peak * factor)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.adamw.zero_grad(set_to_none=True)
        for parameter in self.matrices.values():
            parameter.grad = None

    @torch.no_grad()
    def _muon_step(self, learning_rate: float) -> None:
        shapes: dict[torch.Size, list[str]] = defaultdict(list)
        for name, parameter in self.matrices.items():
            shapes[parameter.shape].append(name)
        for shape, names in shapes.items():
            gradients = []
            for name in names:
                gradient = self.matrices[name].grad
                assert gradient is not None
                # An average, not a sum, of gradients; Nesterov: look ahead along the updated momentum.
                self.momentum[name].lerp_(gradient, 1 - MOMENTUM)
                gradients.append(gradient.lerp(self.momentum[name], MOMENTUM))
            updates = orthogonalized(torch.stack(gradients), self.iteration_dtype)
            scale = learning_rate * max(1.0, shape[0] / shape[1]) ** 0.5
            for name, update in zip(names, updates):
                self.matrices[name].mul_(1 - learning_rate * self.weight_decay)
                self.matrices[name].add_(update.to(self.matrices[name].dtype), alpha=-scale)

    def state_tensors(self) -> dict[str, Tensor]:
        """All state as named tensors, for a safetensors file."""
        tensors = {f"muon.{name}": tensor for name, tensor in self.momentum.items()}
        for name, parameter in self.others.items():
            for key, value in self.adamw.state.get(parameter, {}).items():
                tensors[f"adamw.{key}.{name}"] = value
        return tensors

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state_tensors` gave."""
        for name, tensor in self.momentum.items():
            tensor.copy_(tensors[f"muon.{name}"])
        for name, parameter in self.others.items():
            keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"adamw.{key}.{name}" in tensors]
            self.adamw.state[parameter] = {
                key: tensors[f"adamw.{key}.{name}"].to(parameter.device) for key in keys
            }


def orthogonalized(gradients_NRC: Tensor, dtype: torch.dtype, iterations: int = 5) -> Tensor:
    """N matrices [N, R, C] with all singular values near one: Newton–Schulz on all of them at once."""
    a, b, c = NEWTON_SCHULZ
    x = gradients_NRC.to(dtype)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x
