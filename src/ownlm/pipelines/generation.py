"""text-generation: a text goes on, or a conversation is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ownlm.console.errors import UsageError
from ownlm.json_files import read_object
from ownlm.loaded import draw_seed
from ownlm.pipelines.base import Pipeline

SAMPLING = (
    "max_length", "max_new_tokens", "min_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty",
    "num_return_sequences", "seed",
)  # fmt: skip
# What transformers 4 draws with where a model's files say nothing.
USUAL = {"do_sample": True, "temperature": 0.7, "top_k": 50, "max_new_tokens": 256}


class TextGeneration(Pipeline):
    """[{"generated_text"}] for each text: prompt and continuation, or with return_full_text=False the latter alone.

    Messages ({"role", "content"} each) are answered: "generated_text" then is the list with the answer behind.
    """

    OPTIONS: ClassVar = {
        **dict.fromkeys(SAMPLING),
        "do_sample": None,
        "num_beams": 1,
        "return_full_text": True,
        "stop_sequence": None,
        "stop_strings": None,
        "pad_token_id": None,
        "eos_token_id": None,
        "prefix": "",
    }

    def __call__(self, inputs: Any, **options: Any) -> Any:
        if isinstance(inputs, list) and inputs and isinstance(inputs[0], dict):  # one conversation
            return self.one(inputs, self._options | self._checked(options))
        return super().__call__(inputs, **options)

    def many(self, values: Sequence[Any], options: Mapping[str, Any]) -> list[Any]:
        if self._value(options, "num_beams") != 1:
            raise UsageError(
                "a causal model draws, or takes the most probable token.", where="num_beams", do="1"
            )
        settings = self._settings(options)
        full = bool(self._value(options, "return_full_text"))
        return [
            self._continued(value, settings, full, str(self._value(options, "prefix") or ""))
            for value in values
        ]

    def _continued(
        self, value: Any, settings: dict[str, Any], full: bool, prefix: str
    ) -> list[dict[str, Any]]:
        if isinstance(value, str):
            found = self.model.complete(prefix + value, **settings)
            alone = not full or self.model.answers_alone
            return [{"generated_text": one.text if alone else one.prompt + one.text} for one in found]
        if not isinstance(value, list):
            raise UsageError(f"{type(value).__name__} is no text.", where="inputs", do="a text or messages")
        chatting = {name: number for name, number in settings.items() if name != "max_length"}
        if chatting.pop("num_return_sequences", 1) != 1:
            raise UsageError("a conversation has one answer.", where="num_return_sequences", do="1")
        answer = {"role": "assistant", "content": self.model.chat(value, **chatting).text}
        return [{"generated_text": [*value, answer] if full else answer["content"]}]

    def _settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of `LoadedModel.complete`: of the call, else of the model's files, else as usual."""
        asked = {name: options[name] for name in (*SAMPLING, "do_sample") if options.get(name) is not None}
        own = self._own()
        lengths = ("max_length", "max_new_tokens")
        if any(name in asked for name in lengths):
            own = {name: value for name, value in own.items() if name not in lengths}
        if "max_length" in {**own, **asked}:
            usual = {name: value for name, value in USUAL.items() if name != "max_new_tokens"}
        else:
            usual = USUAL
        chosen: dict[str, Any] = usual | own | asked
        if "max_new_tokens" in asked:
            chosen.pop("max_length", None)
        sampled = chosen.pop("do_sample")
        if not sampled:
            chosen = {k: v for k, v in chosen.items() if k not in ("top_k", "top_p", "min_p")} | {
                "temperature": 0.0
            }
        stop = options.get("stop_sequence") or options.get("stop_strings")
        return chosen | {"seed": chosen.get("seed", draw_seed())} | ({"stop": stop} if stop else {})

    def _own(self) -> dict[str, Any]:
        """What the model's files say: generation_config.json, and config.json of this task."""
        found: dict[str, Any] = {}
        for name in ("generation_config.json", "config.json"):
            file = self.model.path / name
            content = read_object(file) if file.is_file() else {}
            if name == "config.json":
                tasks = content.get("task_specific_params")
                content = tasks.get("text-generation", {}) if isinstance(tasks, dict) else {}
            known = (*SAMPLING, "do_sample")
            found |= {key: value for key, value in content.items() if key in known and value is not None}
        return found
