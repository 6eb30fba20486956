"""Every field of every route in one table: honoured, accepted because it has no effect by definition, or refused.

Validation (`schemas.py`), the OpenAPI document, the table of docs/serve.md and the fuzz tests come from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ownlm.server import kinds as k

Treatment = Literal["honoured", "no effect", "refused"]


@dataclass(frozen=True)
class Field:
    """A field of a request.

    Args:
        name: in the JSON object.
        kind: its type; null always means the default.
        expects: what it must be, in words.
        note: what it does; of a refused one: why it is refused.
        default: what its absence means; ... when it is required.
        treatment: "honoured"; "no effect": any value of its kind is accepted, as it could change nothing here;
            "refused": every value but the `neutral` ones is answered with 400.
        neutral: values of a refused field that ask for nothing.
    """

    name: str
    kind: Any
    expects: str
    note: str
    default: Any = None
    treatment: Treatment = "honoured"
    neutral: tuple[Any, ...] = ()


def no_effect(name: str, kind: Any, expects: str, note: str) -> Field:
    """A field that can change nothing here."""
    return Field(name, kind, expects, note, treatment="no effect")


def refused(name: str, note: str, *neutral: Any) -> Field:
    """A field that is answered with 400."""
    return Field(name, Any, "left out", note, treatment="refused", neutral=neutral)


MODEL = Field("model", str, "the name of a served model", "which model answers; absent: the served one")

SAMPLING = [
    Field("temperature", k.Temperature, "a number from 0 to 2", "0 takes the most probable token", 1.0),
    Field("top_p", k.Share, "a number from 0 to 1", "sample from the smallest set that reaches it", 1.0),
    Field("top_k", k.TopK, "a whole number; 0 or -1: off", "sample from the k most probable tokens", 0),
    Field("min_p", k.Share, "a number from 0 to 1", "least share of the most probable token's probability", 0.0),
    Field("n", k.Choices, f"a whole number from 1 to {k.MAX_CHOICES}", "answers for each prompt", 1),
    Field("seed", k.Seed, "a whole number of 64 bits", "the same seed gives the same bytes; absent: drawn"),
    Field(
        "stop", k.Stop, f"a text or at most {k.MAX_STOPS} texts of 1 to {k.MAX_STOP_LENGTH} characters",
        "texts that end an answer and are not part of it",
    ),
    Field("stop_token_ids", list[k.TokenId], "a list of token ids", "tokens that end an answer", ()),
    Field("ignore_eos", bool, "true or false", "the model cannot end an answer", False),
    Field("min_tokens", k.Count, "a whole number", "the model cannot end an answer before", 0),
    Field("include_stop_str_in_output", bool, "true or false", "a stop text is part of the answer", False),
    Field("skip_special_tokens", bool, "true or false", "false: special tokens are written out", True),
    Field("presence_penalty", k.Penalty, "a number from -2 to 2", "taken from logits of tokens of the answer", 0.0),
    Field("frequency_penalty", k.Penalty, "a number from -2 to 2", "the same for each time that they stand there", 0.0),
    Field("repetition_penalty", k.RepetitionPenalty, "a number above 0", "over prompt and answer; 1: off", 1.0),
    Field(
        "logit_bias", k.LogitBias, f"an object of at most {k.MAX_BIASES} token ids and numbers from -100 to 100",
        "added to logits; -100 forbids a token", (),
    ),
    Field("stream", bool, "true or false", "server-sent events", False),
    Field("stream_options", k.StreamOptions, "an object with include_usage", "the last chunk tells token counts"),
    Field(
        "response_format", k.ResponseFormat,
        'an object with "type": "text", "json_object", or "json_schema" and "json_schema": {"name", "schema"}',
        "the answer has this form",
    ),
    Field(
        "structured_outputs", k.StructuredOutputs, 'an object with "json": a schema, or "choice": a list of texts',
        "the answer has this form",
    ),
]  # fmt: skip

NOT_USED = [
    no_effect("user", str, "a text", "there are no accounts here"),
]

NOT_HERE = [
    refused("allowed_token_ids", "use logit_bias to forbid tokens"),
    refused("bad_words", "use logit_bias to forbid tokens", []),
    refused("cache_salt", "the cache of prefixes is shared by all clients"),
    refused("guided_choice", "it is called structured_outputs now"),
    refused("guided_grammar", "grammars are not supported"),
    refused("guided_json", "it is called structured_outputs now"),
    refused("guided_regex", "regular expressions are not supported"),
    refused("length_penalty", "there is no beam search", 1, 1.0),
    refused("priority", "requests are served in the order they come", 0),
    refused("prompt_logprobs", "use echo with logprobs at /v1/completions"),
    refused("request_id", "send the header x-request-id"),
    refused("return_token_ids", "use /tokenize", False),
    refused("truncate_prompt_tokens", "a prompt is never cut"),
    refused("use_beam_search", "there is no beam search", False),
]

COMPLETIONS = [
    MODEL,
    Field(
        "prompt", k.Prompt, f"a text, a list of texts (at most {k.MAX_PROMPTS}), a list of token ids or a list of such lists",
        "what is continued; token ids are taken as they are", "",
    ),
    Field("max_tokens", k.Count, "a whole number", "tokens of an answer at most; 0 only with echo", None),
    Field("echo", bool, "true or false", "the prompt is part of the answer, with logprobs those of its tokens too", False),
    Field("logprobs", k.Top, f"a whole number from 0 to {k.MAX_TOP}", "log-probabilities, and so many of the best tokens"),
    Field("add_special_tokens", bool, "true or false", "what the model wants before a text is put there", True),
    *SAMPLING,
    *NOT_USED,
    *NOT_HERE,
    refused("best_of", "use n and choose yourself", 1),
    refused("suffix", "this model does not fill in the middle", ""),
]  # fmt: skip

CHAT = [
    MODEL,
    Field(
        "messages", k.Messages, "a list of messages, each with role (system, developer, user, assistant) and content "
        "(a text or text parts)", "the conversation, written by the model's chat template; developer is written as system", ...,
    ),
    Field("max_completion_tokens", k.AtLeastOne, "a whole number above 0", "tokens of an answer at most; absent: what the window holds"),
    Field("max_tokens", k.AtLeastOne, "a whole number above 0", "the older name; max_completion_tokens counts when both are there"),
    Field("logprobs", bool, "true or false", "log-probabilities of the answer's tokens", False),
    Field("top_logprobs", k.Top, f"a whole number from 0 to {k.MAX_TOP}", "so many of the best tokens; needs logprobs"),
    Field("add_generation_prompt", bool, "true or false", "the template opens the assistant's turn", True),
    *SAMPLING,
    *NOT_USED,
    no_effect("metadata", k.Metadata, "an object", "nothing is stored"),
    no_effect("parallel_tool_calls", bool, "true or false", "there are no tool calls"),
    no_effect("prompt_cache_key", str, "a text", "prefixes are found by their content"),
    no_effect("reasoning_effort", str, "a text", "there is no reasoning apart from the answer"),
    no_effect("safety_identifier", str, "a text", "there are no accounts here"),
    *NOT_HERE,
    refused("add_special_tokens", "the chat template writes them", False),
    refused("audio", "models here read and write text"),
    refused("chat_template", "the template belongs to the model (ownlm serve --chat-template)"),
    refused("chat_template_kwargs", "templates get messages alone", {}),
    refused("continue_final_message", "an answer begins a turn", False),
    refused("documents", "put them into a message", []),
    refused("echo", "it belongs to /v1/completions", False),
    refused("function_call", "answers are text, without calls of tools", "none", "auto"),
    refused("functions", "answers are text, without calls of tools", []),
    refused("modalities", "models here write text", ["text"]),
    refused("moderation", "there is no moderation"),
    refused("prediction", "it would change nothing but the time"),
    refused("prompt_cache_options", "the cache of prefixes has no options"),
    refused("prompt_cache_retention", "the cache of prefixes lives as long as its memory is not needed"),
    refused("service_tier", "there is one tier", "auto", "default"),
    refused("store", "nothing is stored", False),
    refused("tool_choice", "answers are text, without calls of tools", "none", "auto"),
    refused("tools", "answers are text, without calls", []),
    refused("verbosity", "say in a message how long an answer shall be", "medium"),
    refused("web_search_options", "there is no web search"),
]  # fmt: skip

EMBEDDINGS = [
    MODEL,
    Field(
        "input", k.Prompt, f"a text, a list of texts (at most {k.MAX_PROMPTS}), a list of token ids or a list of such lists",
        "what is embedded: the mean of the last layer's states, of length 1", ...,
    ),
    Field("encoding_format", Literal["float", "base64"], '"float" or "base64"', "numbers, or float32 in little endian", "float"),
    Field("dimensions", k.AtLeastOne, "a whole number up to the width of the model", "the first so many numbers, of length 1 again"),
    Field("add_special_tokens", bool, "true or false", "what the model wants before a text is put there", True),
    *NOT_USED,
    refused("truncate_prompt_tokens", "a text is never cut"),
]  # fmt: skip

TOKENIZE = [
    MODEL,
    Field("prompt", str, "a text", "what is tokenized; or messages"),
    Field("messages", k.Messages, "a list of messages", "written by the chat template, then tokenized"),
    Field("add_special_tokens", bool, "true or false", "what the model wants before a text is put there (not with messages)", True),
    Field("add_generation_prompt", bool, "true or false", "the template opens the assistant's turn", True),
    Field("return_token_strs", bool, "true or false", "each token as text", True),
]  # fmt: skip

DETOKENIZE = [
    MODEL,
    Field("tokens", list[k.TokenId], "a list of token ids", "ids to be written as text", ...),
]

_INPUT = Field(
    "input", k.Texts, f"a text or a list of texts (at most {k.MAX_PROMPTS})", "what is worked on", ...
)
TRANSLATE = [
    MODEL,
    _INPUT,
    Field("to", k.Language, "a language code such as en or zh", "the language to translate into", ...),
    Field(
        "from", k.Language, "a language code such as en or zh", "the language of the text; absent: not said"
    ),
]
ANSWER = [
    MODEL,
    Field("question", str, "a text", "what is asked", ...),
    Field("context", str, "a text", "where the answer stands", ...),
    Field("top_k", k.Choices, f"a whole number from 1 to {k.MAX_CHOICES}", "so many of the best answers", 1),
]
CLASSIFY = [
    MODEL,
    _INPUT,
    Field(
        "labels",
        k.Labels,
        "a list of at least two texts",
        "to choose from; absent: those the model was taught",
    ),
    Field("top_k", k.Choices, f"a whole number from 1 to {k.MAX_CHOICES}", "so many of the best labels", 1),
]
SUMMARIZE = [MODEL, _INPUT]
SEARCH = [
    MODEL,
    Field("question", str, "a text", "what is asked of the documents", ...),
    Field("top_k", k.Choices, f"a whole number from 1 to {k.MAX_CHOICES}", "so many of the best passages", 5),
    Field(
        "answer",
        Literal["passages", "span", "text"],
        '"passages", "span" or "text"',
        "the passages alone, words of one of them, or a text that the model writes from them",
        "passages",
    ),
]

ROUTES: dict[str, list[Field]] = {
    "/v1/completions": COMPLETIONS,
    "/v1/chat/completions": CHAT,
    "/v1/embeddings": EMBEDDINGS,
    "/tokenize": TOKENIZE,
    "/detokenize": DETOKENIZE,
    "/v1/tasks/translate": TRANSLATE,
    "/v1/tasks/answer": ANSWER,
    "/v1/tasks/classify": CLASSIFY,
    "/v1/tasks/summarize": SUMMARIZE,
    "/v1/tasks/search": SEARCH,
}
