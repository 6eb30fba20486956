"""What `langchain-openai` does with a server: `langchain_client.py URL`."""

from __future__ import annotations

import sys
from typing import Literal

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel


class Animal(BaseModel):
    """An animal."""

    wild: bool
    name: Literal["fox", "hen"]


def main(url: str) -> None:
    chat = ChatOpenAI(base_url=url, api_key="none", model="run", max_tokens=20, seed=3, max_retries=0)
    asked = [SystemMessage("Be brief."), HumanMessage("The quick")]
    whole = chat.invoke(asked)
    assert whole.usage_metadata["output_tokens"] <= 20
    assert "".join(chunk.content for chunk in chat.stream(asked)) == whole.content
    assert len(chat.batch([asked, asked])) == 2
    again = chat.invoke([*asked, whole, HumanMessage("And?")])
    assert isinstance(again.content, str)
    formed = ChatOpenAI(base_url=url, api_key="none", model="run", max_tokens=60, seed=3, max_retries=0)
    found = formed.with_structured_output(Animal).invoke(asked)
    assert isinstance(found, Animal)
    found = formed.with_structured_output(Animal, method="json_schema").invoke(asked)
    assert isinstance(found, Animal)
    text = OpenAI(base_url=url, api_key="none", model="run", max_tokens=8, max_retries=0).invoke("The quick")
    assert isinstance(text, str)
    vectors = OpenAIEmbeddings(base_url=url, api_key="none", model="run", check_embedding_ctx_length=False)
    assert len(vectors.embed_documents(["The quick", "A river"])) == 2
    print("langchain: fine")


main(sys.argv[1])
