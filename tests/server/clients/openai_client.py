"""What the `openai` package does with a server; run as a program by its own Python: `openai_client.py URL`."""

from __future__ import annotations

import asyncio
import json
import sys

import openai
from openai import AsyncOpenAI, OpenAI

CHAT = [{"role": "user", "content": "The quick"}]


def completions(client: OpenAI) -> None:
    asked = {"model": "run", "prompt": "The quick", "max_tokens": 12, "seed": 3}
    whole = client.completions.create(**asked)
    assert whole._request_id
    assert whole.usage.completion_tokens == 12
    stream = client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert chunks[-1].usage == whole.usage
    assert "".join(c.choices[0].text for c in chunks[:-1]) == whole.choices[0].text
    scored = client.completions.create(**asked, echo=True, logprobs=2)
    assert scored.choices[0].logprobs.token_logprobs


def chat(client: OpenAI) -> None:
    asked = {"model": "run", "messages": CHAT, "max_completion_tokens": 12, "seed": 3}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    assert whole.choices[0].message.role == "assistant"
    assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    stream = client.chat.completions.create(**asked, stream=True)
    text = "".join(c.choices[0].delta.content or "" for c in stream)
    assert text == whole.choices[0].message.content
    # An answer goes back as it came.
    turns = [*CHAT, whole.choices[0].message.model_dump(), {"role": "user", "content": "And?"}]
    assert client.chat.completions.create(model="run", messages=turns, max_tokens=2).choices
    extra = client.chat.completions.create(**asked, extra_body={"top_k": 1, "repetition_penalty": 1.2})
    assert extra.choices


def forms(client: OpenAI) -> None:
    from pydantic import BaseModel

    class Animal(BaseModel):
        wild: bool

    parsed = client.chat.completions.parse(model="run", messages=CHAT, response_format=Animal, seed=1)
    assert isinstance(parsed.choices[0].message.parsed, Animal)
    plain = client.chat.completions.create(
        model="run", messages=CHAT, response_format={"type": "json_object"}, max_tokens=80, seed=2
    )
    if plain.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(plain.choices[0].message.content), dict)


def others(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["run"]
    assert client.models.retrieve("run").id == "run"
    vectors = client.embeddings.create(model="run", input=["The quick", "A river"])  # asks for base64
    assert len(vectors.data) == 2
    assert abs(sum(x * x for x in vectors.data[0].embedding) - 1) < 1e-4


def errors(client: OpenAI) -> None:
    for kind, ask in (
        (openai.NotFoundError, lambda: client.completions.create(model="none", prompt="x")),
        (openai.NotFoundError, lambda: client.models.retrieve("none")),
        (
            openai.BadRequestError,
            lambda: client.completions.create(model="run", prompt="x", max_tokens=10_000),
        ),
        (
            openai.BadRequestError,
            lambda: client.chat.completions.create(model="run", messages=CHAT, store=True),
        ),
        (openai.BadRequestError, lambda: client.completions.create(model="run", prompt="x", best_of=3)),
    ):
        told = None
        try:
            ask()
        except kind as error:
            told = error
        assert told is not None, kind
        assert told.body["message"]
        assert told.request_id


async def at_once(url: str) -> None:
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        asked = {"model": "run", "prompt": "The quick", "max_tokens": 12, "seed": 3}
        found = await asyncio.gather(*(client.completions.create(**asked) for _ in range(16)))
        assert len({one.choices[0].text for one in found}) == 1
        stream = await client.completions.create(**asked, stream=True)
        async for _ in stream:
            break
        await stream.close()


def main(url: str) -> None:
    client = OpenAI(base_url=url, api_key="none", max_retries=0)
    for look in (completions, chat, forms, others, errors):
        look(client)
    asyncio.run(at_once(url))
    print(f"openai {openai.__version__}: fine")


main(sys.argv[1])
