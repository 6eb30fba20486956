"""Reading somebody else's config.json: every field is read, known to be harmless, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ownlm.console.errors import Refused

# Fields that change nothing of what a causal or masked model computes from token ids: names and versions, how it
# was trained (dropout, initialisation), and what generation_config.json holds today.
HARMLESS = frozenset(
    """
    _name_or_path _attn_implementation _commit_hash architectures auto_map model_type transformers_version torch_dtype
    dtype use_cache bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id cls_token_id mask_token_id
    decoder_start_token_id forced_bos_token_id forced_eos_token_id tokenizer_class prefix task_specific_params
    problem_type finetuning_task label2id id2label num_labels return_dict return_dict_in_generate output_hidden_states
    output_attentions output_scores torchscript tf_legacy_loss use_bfloat16 pruned_heads bad_words_ids begin_suppress_tokens
    suppress_tokens do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p
    typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size max_length min_length
    num_return_sequences remove_invalid_values exponential_decay_length_penalty chunk_size_feed_forward
    tie_encoder_decoder cross_attention_hidden_size initializer_range pretraining_tp unsloth_version
    unsloth_fixed resid_pdrop embd_pdrop attn_pdrop resid_dropout embedding_dropout attention_dropout hidden_dropout
    hidden_dropout_prob attention_probs_dropout_prob classifier_dropout summary_type summary_use_proj
    summary_activation summary_first_dropout summary_proj_to_labels gradient_checkpointing n_ctx model_max_length license
    _num_labels predict_special_tokens n_special output_past is_llama_config neftune_noise_alpha transformers.js_config
    """.split()  # noqa: SIM905 - forty lines of quotes would hide the words
)
_HELP = 'pip install "ownlm[transformers]", then the same command: transformers runs the model'
_ROPE = frozenset(
    [
        "rope_type",
        "rope_theta",
        "partial_rotary_factor",
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ]
)
_NOTHING: tuple[Any, ...] = (None, False, "", [], {})


class NotNative(Refused):
    """A model that is well-formed but not built in: with the extra `transformers` that library runs it."""

    def __init__(self, what: str, *, where: object, why: str = "It changes what the model computes.") -> None:
        super().__init__(what, where=where, why=why, do=_HELP)


class Fields:
    """A config.json whose fields are taken one by one; what was never asked for is refused at the end.

    Args:
        content: the parsed file.
        where: what messages name.
    """

    def __init__(self, content: Mapping[str, Any], where: object) -> None:
        self.content, self.where = content, where
        self.kind = str(content.get("model_type"))
        self._asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """A field as it stands; null counts as not given."""
        self._asked.add(name)
        value = self.content.get(name)
        return default if value is None else value

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number; without a default the field must be there."""
        value = self.get(name, default)
        if value is None:
            raise Refused(f"config.json has no field '{name}'.", where=self.where)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
            raise self._wrong(name, value, "a whole number")
        return int(value)

    def number(self, name: str, default: float) -> float:
        """A finite number."""
        return self._number(name, self.get(name, default))

    def flag(self, name: str, default: bool = False) -> bool:
        """true or false."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def only(self, name: str, *allowed: Any) -> None:
        """Refuse a field whose value is none of these; the first one is what a missing field means."""
        value = self.get(name, allowed[0])
        if value not in allowed:
            raise NotNative(f"{name}={value!r} is not supported in {self.kind} models.", where=self.where)

    def rope(self, default_theta: float = 10_000.0) -> dict[str, Any]:
        """rope_theta and rope_scaling as `ModelConfig` fields, from either way in which configs say them."""
        from ownlm.model.config import RopeScaling

        given = self._rope_object()
        self._asked.add("rope_theta")
        named = (given.get("rope_theta"), self.content.get("rope_theta"), default_theta)
        theta = self._number("rope_theta", next(value for value in named if value is not None))
        if theta <= 0:
            raise self._wrong("rope_theta", theta, "a number above 0")
        partial = given.get("partial_rotary_factor", self.get("partial_rotary_factor", 1.0))
        if partial not in (1, 1.0, None):
            raise NotNative(f"partial_rotary_factor={partial!r} is not supported.", where=self.where)
        kind = given.get("rope_type") or "default"
        wanted = {"linear": ["factor"], "llama3": ["factor", "low_freq_factor", "high_freq_factor"]}
        unknown = sorted(name for name, value in given.items() if name not in _ROPE and value is not None)
        if unknown and kind in ("default", *wanted):  # such as an object for each kind of layer
            raise NotNative(
                f"rope_parameters says {', '.join(unknown)[:80]}, which is not supported.", where=self.where
            )
        if kind == "default":
            return {"rope_theta": theta, "rope_scaling": None}
        if not isinstance(kind, str) or kind not in wanted:
            known = f"Known: default, {', '.join(wanted)}."
            raise NotNative(f"RoPE type {kind!r} is not supported.", where=self.where, why=known)
        missing = [name for name in wanted[kind] if name not in given]
        if missing:
            raise Refused(f"RoPE type {kind!r} needs {', '.join(missing)}.", where=self.where)
        numbers = {name: self._number(f"rope_parameters.{name}", given[name]) for name in wanted[kind]}
        name = "original_max_position_embeddings"
        original = int(self._number(name, given.get(name) or self.get("max_position_embeddings")))
        if min(numbers["factor"], original) <= 0 or numbers.get("low_freq_factor", 0) >= numbers.get(
            "high_freq_factor", 1
        ):
            raise Refused(f"rope_parameters {given} make no rotary positions.", where=self.where)
        scaling = RopeScaling(cast(Any, kind), original_max_position_embeddings=original, **numbers)
        return {"rope_theta": theta, "rope_scaling": scaling}

    def _rope_object(self) -> dict[str, Any]:
        """`rope_scaling`, today named `rope_parameters`; a config may say both when they say the same."""
        found: dict[str, Any] = {}
        for name in ("rope_scaling", "rope_parameters"):
            value = self.get(name) or {}
            if not isinstance(value, dict):
                raise self._wrong(name, value, "an object")
            given = dict(value)
            if "type" in given:  # its first name
                given.setdefault("rope_type", given.pop("type"))
                given.pop("type", None)
            differ = sorted(key for key in given.keys() & found.keys() if given[key] != found[key])
            if differ:
                raise Refused(
                    f"rope_scaling and rope_parameters say different things of {', '.join(differ)}.",
                    where=self.where,
                    do="remove one of them",
                )
            found |= given
        return found

    def refuse_unknown(self) -> None:
        """Refuse fields that were neither read nor are known to be harmless (empty ones are)."""
        unknown = [
            name
            for name, value in self.content.items()
            if name not in self._asked and name not in HARMLESS and value not in _NOTHING
        ]
        if unknown:
            listed = ", ".join(f"{name}={self.content[name]!r}"[:80] for name in unknown[:5])
            raise NotNative(
                f"config.json says {listed}, which this version does not know in {self.kind} models.",
                where=self.where,
                why="It may change what the model computes, so it is not ignored.",
            )

    def _number(self, name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e30:
            raise self._wrong(name, value, "a number")
        return float(value)

    def _wrong(self, name: str, value: Any, wanted: str) -> Refused:
        return Refused(f"{name} is {str(value)[:60]!r}, {wanted} is expected.", where=self.where)
