"""`/tokenize`, `/detokenize`, `/tokenizer_info`: what lm-eval and others ask of a tokenizer that is elsewhere."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ownlm.server.call import Call, State, json_response
from ownlm.server.errors import ApiError
from ownlm.server.prompts import chat_prompt, check_ids, text_prompts


async def tokenize(call: Call) -> Response:
    """A text or a conversation as token ids."""
    fields = await call.fields()
    model = call.state.models.find(fields["model"])
    call.record.model = model.name
    if (fields["prompt"] is None) == (fields["messages"] is None):
        raise ApiError(400, "One of prompt and messages is needed.", param="prompt")

    def work() -> dict[str, Any]:
        if fields["messages"] is not None:
            prompt = chat_prompt(model, fields["messages"], fields["add_generation_prompt"])
            ids, text = prompt.ids, prompt.text
        elif not fields["prompt"] and not fields["add_special_tokens"]:
            ids, text = [], ""
        else:
            prompt = text_prompts(model, fields["prompt"], fields["add_special_tokens"])[0]
            ids, text = prompt.ids, prompt.text
        named = [model.tokens.name(index) for index in ids] if fields["return_token_strs"] else None
        return {
            "count": len(ids),
            "max_model_len": model.loaded.context,
            "tokens": ids,
            "token_strs": named,
            "prompt": text,
        }

    found = await call.in_thread(work)
    call.record.prompt_tokens = found["count"]
    return json_response(found)


async def detokenize(call: Call) -> Response:
    """Token ids as text, special tokens by their names."""
    fields = await call.fields()
    model = call.state.models.find(fields["model"])
    call.record.model = model.name
    ids = fields["tokens"]
    check_ids(model, ids, "tokens")
    call.record.prompt_tokens = len(ids)
    return json_response({"prompt": await call.in_thread(lambda: model.tokens.text(ids))})


def tokenizer_info(state: State, request: Request) -> Response:
    """What a client must know of the tokenizer to use it from afar."""
    from ownlm.tasks.templates import special_tokens

    model = state.models.find(request.query_params.get("model"))
    tokenizer = model.tokenizer
    names = {index: name for name, index in tokenizer.special_ids.items()}
    named: dict[str, Any] = dict(special_tokens(tokenizer))
    named.setdefault("eos_token", names.get(model.loaded.stop_ids[0]) if model.loaded.stop_ids else None)
    return json_response(
        named
        | {
            "bos_token": named.get("bos_token"),
            "pad_token": named.get("pad_token"),
            "prefix_token_ids": tokenizer.prefix_ids,
            "vocab_size": tokenizer.vocab_size,
            "tokenizer_class": tokenizer.config.get("tokenizer_class", "PreTrainedTokenizerFast"),
            "model_max_length": model.loaded.context,
            "chat_template": model.template.source if model.template is not None else None,
        }
    )
