"""A model of the library transformers, seen as the engine and the scoring see ours. This module imports none of it.

B rows, T tokens, C width, V vocabulary. How a model remembers what it has read differs between architectures
(`past_key_values`, `cache_params`, `state`, nothing), and so does what stands between the last layer and the logits. Neither is
looked up in a list: both are tried on a few tokens when the model is opened, and kept only when the logits agree with
those of the plain forward pass. The same trial finds models that see what comes later, whose scores would be wrong.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ownlm.console.errors import Refused

PROBE_TOKENS, PROBE_STEPS = 8, 2
# Largest difference of logits, in standard deviations of them: matrix kernels round differently for other shapes.
TOLERANCE, COARSE_TOLERANCE = 1e-3, 0.25
LOGITS_AT_ONCE = 2**28  # numbers, 1 GB in fp32: of a batch whose logits cannot be made for single tokens
CACHES = ("past_key_values", "cache_params", "state", None)


@dataclass
class State:
    """What has been read: ids [T], what the model keeps of them, and inputs that every call gets (encoder states)."""

    ids_T: Tensor
    cache: Any = None
    always: Mapping[str, Any] = field(default_factory=dict)

    def copied(self) -> State:
        """A state of its own: caches are written in place."""
        return State(self.ids_T, copy.deepcopy(self.cache), self.always)


class ForeignModel(nn.Module):
    """What causal and encoder-decoder models share: reading tokens one call after the other.

    Args:
        inner: the model of transformers, in eval mode.
        context: tokens of a prompt and its answer; of an encoder-decoder model: of either.
        ids_name: the argument that takes the tokens that logits are wanted for.
        where: what messages name.

    Raises:
        Refused: the logits are not finite, or do not depend on the tokens before alone.
    """

    def __init__(self, inner: Any, context: int, ids_name: str, where: object) -> None:
        super().__init__()
        self.inner, self.context, self.where = inner, context, where
        self.embedding = inner.get_input_embeddings()
        self.ids_name = ids_name
        self.accepted = frozenset(inspect.signature(inner.forward).parameters)
        self.cache_name: str | None = None
        self.vocab_size = 0
        self._probe()
        self.config = SimpleNamespace(vocab_size=self.vocab_size, max_position_embeddings=context)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.embedding.weight.device

    def num_parameters(self) -> int:
        """All of them, shared ones once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def longest(self, prompt_tokens: int) -> int:
        """Tokens of prompt and answer together at most."""
        return self.context

    def start(self, prompt_T: npt.NDArray[np.int64]) -> tuple[State, Tensor]:
        """Read a prompt; gives what was kept of it and the logits [V] of what follows."""
        raise NotImplementedError

    def read(self, state: State, new_T: Tensor) -> Tensor:
        """Read further tokens; changes the state, gives the logits [V] after the last of them."""
        state.ids_T = torch.cat([state.ids_T, new_T])
        last: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in self.accepted else {}
        if self.cache_name is None:
            return self._forward(state.ids_T[None], {**state.always, **last}).logits[0, -1]
        inputs: dict[str, Any] = {**state.always, **last, "use_cache": True}
        if self.ids_name == "input_ids":
            # Positions of some models are counted in the mask, past tokens included; recurrent ones take none.
            whole = torch.ones(1, len(state.ids_T), dtype=torch.long, device=self.device)
            inputs["attention_mask"] = whole if self.cache_name == "past_key_values" else None
        if state.cache is not None:
            inputs[self.cache_name] = state.cache
            if self.cache_name == "cache_params":  # asked for by Mamba in transformers 4
                inputs["cache_position"] = torch.tensor([len(state.ids_T) - 1], device=self.device)
        found = self._forward(new_T[None], inputs)
        state.cache = found[self.cache_name]
        return found.logits[0, -1]

    def _forward(self, ids_BT: Tensor, inputs: Mapping[str, Any]) -> Any:
        """The model's own output for tokens, everything visible."""
        given: dict[str, Any] = {"use_cache": False, "attention_mask": torch.ones_like(ids_BT), **inputs}
        given = {name: value for name, value in given.items() if name in self.accepted and value is not None}
        return self.inner(**{self.ids_name: ids_BT}, **given, return_dict=True)

    def _always(self, ids_T: Tensor) -> dict[str, Any]:
        """Inputs of every call, for the trial."""
        return {}

    @torch.inference_mode()
    def _probe(self) -> None:
        """Find what the model keeps of tokens it has read: the first way that gives the logits of the plain pass."""
        ids = (torch.arange(PROBE_TOKENS) * 7919 + 3) % self.embedding.num_embeddings
        ids = ids[: self.context].to(self.device)
        always = self._always(ids)
        whole_TV = self._forward(ids[None], always).logits[0].float()
        if not torch.isfinite(whole_TV).all():
            raise Refused(
                "the model's output is not a finite number.",
                where=self.where,
                why="Its weights are damaged, or training diverged.",
                do="fetch the model again",
            )
        self.vocab_size = whole_TV.shape[-1]
        for self.cache_name in CACHES:
            if self._agrees(ids, whole_TV, always):
                return
        raise Refused(
            "the logits of a token change with the tokens after it: this is no model that continues text.",
            where=self.where,
            why="Probabilities and texts would be wrong.",
            do="a causal model, or a masked one under its masked class in config.json",
        )

    def _agrees(self, ids_T: Tensor, whole_TV: Tensor, always: Mapping[str, Any]) -> bool:
        first = max(1, len(ids_T) - PROBE_STEPS)
        state = State(ids_T[:0], None, always)
        try:
            found = [self.read(state, ids_T[:first])]
            if self.cache_name is not None and state.cache is None:
                return False
            found += [self.read(state, ids_T[place : place + 1]) for place in range(first, len(ids_T))]
        except (TypeError, ValueError, KeyError, AttributeError, IndexError, RuntimeError):
            if self.cache_name is None:
                raise
            return False  # this model takes no such argument
        tolerance = TOLERANCE if self.embedding.weight.dtype == torch.float32 else COARSE_TOLERANCE
        difference = (torch.stack(found).float() - whole_TV[first - 1 :]).abs().max()
        return bool(difference <= tolerance * whole_TV.std())


class ForeignCausal(ForeignModel):
    """A model that continues text. `hidden` and `head` together give logits, as those of `Transformer` do."""

    def __init__(self, inner: Any, context: int, where: object) -> None:
        super().__init__(inner, context, "input_ids", where)
        self.split = self._splits()
        if not self.split:
            self.most_tokens = max(1, LOGITS_AT_ONCE // self.vocab_size)

    def start(self, prompt_T: npt.NDArray[np.int64]) -> tuple[State, Tensor]:
        ids = torch.from_numpy(prompt_T).to(self.device)
        state = State(ids[:0])
        return state, self.read(state, ids)

    def hidden(self, ids_BT: Tensor) -> Tensor:
        """[B, T, C] before the head; the logits themselves, [B, T, V], where the model has more than a matrix there.

        Rows may be padded on the right: a token's output depends on what stands before it alone (tried when opened).
        """
        if self.split:
            return self._base(ids_BT)
        logits: Tensor = self._forward(ids_BT, {}).logits
        return logits

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [..., V]."""
        logits: Tensor = self.inner.get_output_embeddings()(hidden) if self.split else hidden
        return logits

    def _base(self, ids_BT: Tensor) -> Tensor:
        base = self.inner.base_model
        accepted = inspect.signature(base.forward).parameters
        given = {"use_cache": False, "attention_mask": torch.ones_like(ids_BT), "return_dict": True}
        hidden: Tensor = base(ids_BT, **{name: value for name, value in given.items() if name in accepted})[0]
        return hidden

    @torch.inference_mode()
    def _splits(self) -> bool:
        """Whether the output matrix makes exactly the logits; then those that nobody asks for need not be made."""
        ids_BT = (
            torch.arange(2 * PROBE_TOKENS, device=self.device).view(2, -1) * 104_729 + 7
        ) % self.vocab_size
        ids_BT = ids_BT[:, : self.context] % self.embedding.num_embeddings
        try:
            logits = self.inner.get_output_embeddings()(self._base(ids_BT))
            return torch.equal(logits.float(), self._forward(ids_BT, {}).logits.float())
        except (TypeError, ValueError, KeyError, AttributeError, IndexError, RuntimeError):
            return False


class ForeignSeq2Seq(ForeignModel):
    """An encoder that reads the prompt and a decoder that writes the answer, each with a window of its own.

    Args:
        prefix: ids that every answer starts with (decoder_start_token_id, forced_bos_token_id); not counted.
    """

    def __init__(self, inner: Any, context: int, where: object, prefix: Sequence[int]) -> None:
        super().__init__(inner, context, "decoder_input_ids", where)
        self._prefix = list(prefix)

    def longest(self, prompt_tokens: int) -> int:
        """The answer has a window of its own."""
        return prompt_tokens + self.context - len(self._prefix)

    def start(self, prompt_T: npt.NDArray[np.int64]) -> tuple[State, Tensor]:
        prefix = torch.tensor(self._prefix, device=self.device)
        state = State(prefix[:0], None, self._always(torch.from_numpy(prompt_T).to(self.device)))
        return state, self.read(state, prefix)

    def _always(self, ids_T: Tensor) -> dict[str, Any]:
        mask = torch.ones_like(ids_T)[None]
        encoded = self.inner.get_encoder()(input_ids=ids_T[None], attention_mask=mask, return_dict=True)
        return {"encoder_outputs": encoded, "attention_mask": mask}

    @torch.inference_mode()
    def score_answers(
        self, prompts: Sequence[npt.NDArray[Any]], answers: Sequence[npt.NDArray[Any]]
    ) -> list[npt.NDArray[np.float64]]:
        """Log-probability (nats) of every token of each answer, given its prompt and the tokens before: [tokens].

        Raises:
            Refused: a prompt or an answer is longer than its window.
        """
        return [self._score(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]

    def _score(self, prompt: npt.NDArray[Any], answer: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        for what, tokens in (("prompt", len(prompt)), ("candidate", len(answer) + len(self._prefix) - 1)):
            if tokens > self.context:
                raise Refused(
                    f"the {what} has {tokens:,} tokens; the window holds {self.context:,}.", where="score"
                )
        if not len(answer):
            return np.zeros(0)
        always = self._always(torch.from_numpy(prompt.astype(np.int64)).to(self.device))
        ids = torch.tensor([*self._prefix, *answer.tolist()], device=self.device)
        logits = self._forward(ids[None, :-1], always).logits[0, len(self._prefix) - 1 :].double()
        chosen = logits.log_softmax(-1).gather(-1, ids[len(self._prefix) :, None])[:, 0]
        return chosen.cpu().numpy()

    def hidden(self, ids_BT: Tensor) -> Tensor:
        """Text alone has no probability here.

        Raises:
            Refused: always.
        """
        raise Refused(
            "this model answers a prompt: text alone has no probability under it.",
            where=self.where,
            why="Its encoder reads a prompt, its decoder gives the probability of an answer.",
            do=f"ownlm score {self.where} --rank CANDIDATES --prompt PROMPT",
        )
