"""Muon for the matrices of the blocks, AdamW for everything else; state that can be saved without pickling.

Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers"): momentum, then the update's singular values are
brought near one by five Newton–Schulz iterations. Equal shapes are iterated together as one batched product, which
is what makes it cheap on a CPU; `tests/training/test_optimizer.py` holds it against `torch.optim.Muon`.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from ownlm.kernels.library import has_tiles, library
from ownlm.kernels.tensors import MuonKernels
from ownlm.kernels.tiles import Tiles, fits

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic coefficients of the same source
ITERATIONS = 5
MOMENTUM = 0.95
BETAS, EPS = (0.9, 0.95), 1e-8  # short memory of squares: runs here are hundreds to thousands of steps


class Optimizer:
    """Both parts behind one `step`.

    Args:
        model: of its weights that are trained, 2-D ones of blocks go to Muon, embeddings, head, norms and biases to
            AdamW.
        learning_rate: peak of AdamW. muon_learning_rate: peak of Muon; None: AdamW trains everything.
        weight_decay: decoupled, on Muon's matrices and AdamW's 2-D weights.
        iteration_dtype: of the Newton–Schulz products (bf16 where it pays; the iteration tolerates it).
    """

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float,
        muon_learning_rate: float | None,
        weight_decay: float,
        iteration_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.muon_peak, self.weight_decay = muon_learning_rate or 0.0, weight_decay
        self.iteration_dtype = iteration_dtype
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.parameters = list(trained.values())
        self.adam_peak = learning_rate
        self.matrices: dict[str, nn.Parameter] = {}
        others: dict[str, nn.Parameter] = {}
        for name, parameter in trained.items():
            of_blocks = "blocks" in name.split(".") and parameter.ndim == 2
            (self.matrices if of_blocks and muon_learning_rate is not None else others)[name] = parameter
        self.momentum = {name: torch.zeros_like(p) for name, p in self.matrices.items()}
        shapes: dict[torch.Size, list[str]] = defaultdict(list)
        for name, parameter in self.matrices.items():
            shapes[parameter.shape].append(name)
        self.groups = [
            _Matrices([self.matrices[n] for n in names], [self.momentum[n] for n in names], iteration_dtype)
            for names in shapes.values()
        ]
        self.adamw = [
            _AdamW([(n, p) for n, p in others.items() if p.ndim == 2], weight_decay),
            _AdamW([(n, p) for n, p in others.items() if p.ndim != 2], 0.0),
        ]

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One update with learning rates of `factor` times their peaks, from the gradients in `.grad`."""
        for group in self.adamw:
            group.step(self.adam_peak * factor)
        self._muon_step(self.muon_peak * factor)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def _muon_step(self, learning_rate: float) -> None:
        keep = 1 - learning_rate * self.weight_decay
        for group in self.groups:
            group.step(learning_rate, keep)

    def state_tensors(self) -> dict[str, Tensor]:
        """All state as named tensors, for a safetensors file."""
        tensors = {f"muon.{name}": tensor for name, tensor in self.momentum.items()}
        for group in self.adamw:
            tensors |= group.state_tensors()
        return tensors

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state_tensors` gave."""
        for name, tensor in self.momentum.items():
            tensor.copy_(tensors[f"muon.{name}"])
        for group in self.adamw:
            group.load_state_tensors(tensors)


class _AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, alg. 2) by torch's fused operator.

    `torch.optim.AdamW` is the same operator, but making one imports torch's compiler, which takes over a second.
    """

    KEYS = ("step", "exp_avg", "exp_avg_sq")

    def __init__(self, named: list[tuple[str, nn.Parameter]], weight_decay: float) -> None:
        self.names, self.parameters = [name for name, _ in named], [parameter for _, parameter in named]
        self.weight_decay = weight_decay
        self.state: dict[str, list[Tensor]] = {
            "step": [torch.zeros((), device=p.device) for p in self.parameters],
            "exp_avg": [torch.zeros_like(p) for p in self.parameters],
            "exp_avg_sq": [torch.zeros_like(p) for p in self.parameters],
        }

    def step(self, learning_rate: float) -> None:
        """One update of all parameters that have a gradient."""
        chosen = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        if not chosen:
            return
        steps, first, second = ([self.state[key][i] for i in chosen] for key in self.KEYS)
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            [self.parameters[i] for i in chosen], [grad for p in self.parameters if (grad := p.grad) is not None], first, second, [], steps,
            lr=learning_rate, beta1=BETAS[0], beta2=BETAS[1], weight_decay=self.weight_decay, eps=EPS, amsgrad=False,
            maximize=False,
        )  # fmt: skip

    def state_tensors(self) -> dict[str, Tensor]:
        """The state by name."""
        return {
            f"adamw.{key}.{name}": value
            for key in self.KEYS
            for name, value in zip(self.names, self.state[key])
        }

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state_tensors` gave."""
        for key in self.KEYS:
            for name, value in zip(self.names, self.state[key]):
                value.copy_(tensors[f"adamw.{key}.{name}"])


class _Matrices:
    """All matrices of one shape: their momentum, update and step, by the native kernels where they are."""

    def __init__(self, weights: list[nn.Parameter], momenta: list[Tensor], dtype: torch.dtype) -> None:
        self.weights, self.momenta, self.dtype = weights, momenta, dtype
        rows, columns = weights[0].shape
        # A tall matrix moves its outputs more than its inputs: the update's size follows (Jordan et al. 2024).
        self.scale = max(1.0, rows / columns) ** 0.5
        native = (
            library() is not None and weights[0].device.type == "cpu" and weights[0].dtype == torch.float32
        )
        self.kernels = MuonKernels(list(weights), momenta, dtype) if native else None
        on_tiles = native and dtype == torch.bfloat16 and has_tiles() and fits(rows, columns)
        self.tiles = Tiles() if on_tiles else None

    def step(self, learning_rate: float, keep: float) -> None:
        """weights = weights · keep - learning rate · orthogonalized momentum."""
        if self.kernels is not None:
            update = self.kernels.momentum(MOMENTUM)
            if self.tiles is not None:
                self.tiles.newton_schulz(update, torch.tensor([NEWTON_SCHULZ] * ITERATIONS))
            else:
                update = newton_schulz(update)
            self.kernels.apply(update, keep, learning_rate * self.scale)
            return
        gradients = []
        for weight, momentum in zip(self.weights, self.momenta):
            assert weight.grad is not None
            # An average, not a sum, of gradients; Nesterov: look ahead along the updated momentum.
            momentum.lerp_(weight.grad, 1 - MOMENTUM)
            gradients.append(weight.grad.lerp(momentum, MOMENTUM))
        updates = orthogonalized(torch.stack(gradients), self.dtype)
        for weight, update in zip(self.weights, updates):
            weight.mul_(keep)
            weight.add_(update.to(weight.dtype), alpha=-learning_rate * self.scale)


def orthogonalized(gradients_NRC: Tensor, dtype: torch.dtype, iterations: int = ITERATIONS) -> Tensor:
    """N matrices [N, R, C] with all singular values near one."""
    x = gradients_NRC.to(dtype)
    return newton_schulz(x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7), iterations)


def newton_schulz(x_NRC: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """The same of matrices whose norms are one already: the iteration on all of them at once."""
    a, b, c = NEWTON_SCHULZ
    x = x_NRC
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    for _ in range(iterations):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if tall else x).contiguous()
