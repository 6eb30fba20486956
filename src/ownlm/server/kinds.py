"""Types of the fields of requests, checked strictly: "5" is no number, true is no 1."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_PROMPTS = 2048  # in one request, each of them several times with `n`
MAX_CHOICES = 128  # `n`
MAX_STOPS, MAX_STOP_LENGTH = 16, 256  # each new piece of text is compared with all of them
MAX_TOP = 20  # most probable tokens listed at a place
MAX_BIASES = 1024

Text = str
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]
Prompt = Text | TokenIds | Annotated[list[Text] | list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]
Texts = Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Stop = StopText | Annotated[list[StopText | None], Field(max_length=MAX_STOPS)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Share = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
RepetitionPenalty = Annotated[float, Field(gt=0, le=100)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
AtLeastOne = Annotated[int, Field(ge=1, lt=2**31)]
Choices = Annotated[int, Field(ge=1, le=MAX_CHOICES)]
TopK = Annotated[int, Field(ge=-1, lt=2**31)]
Top = Annotated[int, Field(ge=0, le=MAX_TOP)]
Bias = Annotated[float, Field(ge=-100, le=100)]
LogitBias = Annotated[dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Bias], Field(max_length=MAX_BIASES)]
Metadata = dict[str, Any]
Label = Annotated[str, Field(min_length=1, max_length=1000)]
Labels = Annotated[list[Label], Field(min_length=2, max_length=1000)]
Language = Annotated[str, Field(min_length=2, max_length=20)]


class Part(BaseModel):
    """An object within a request."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=(), populate_by_name=False)


class StreamOptions(Part):
    """What is sent beside the text."""

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False
    include_obfuscation: Literal[False] | None = False


class TextPart(Part):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class Message(Part):
    """A turn of a conversation. What clients send back of an answer they got is there too, as far as it is empty."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    refusal: Literal[""] | None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    function_call: None = None
    audio: None = None


Messages = Annotated[list[Message], Field(min_length=1, max_length=10_000)]


class NamedSchema(Part):
    """A JSON schema with a name."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None
    description: str | None = None


class PlainText(Part):
    """No form."""

    type: Literal["text"]


class AnyJson(Part):
    """A JSON object."""

    type: Literal["json_object"]


class SchemaJson(Part):
    """JSON that a schema accepts."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[PlainText | AnyJson | SchemaJson, Field(discriminator="type")]


class StructuredOutputs(Part):
    """vLLM's form: exactly one of them."""

    json_: Annotated[dict[str, Any] | None, Field(alias="json")] = None
    choice: Annotated[list[Label], Field(min_length=1, max_length=1000)] | None = None
