"""Text that a model writes while it trains."""

from __future__ import annotations

from ownlm.corpus.shards import Corpus
from ownlm.seeds import derive
from ownlm.training.loop import Trainer

SAMPLE_TOKENS = 60


def sample(trainer: Trainer, corpus: Corpus, step: int) -> str:
    """How the model continues the prompt of its plan now."""
    from ownlm.engine import Engine, Request, SamplingSettings

    tokenizer, plan = corpus.tokenizer, trainer.plan
    prompt = [tokenizer.eos_id, *tokenizer.encode(plan.sample_prompt).tolist()][-(plan.context // 2) :]
    settings = SamplingSettings(
        temperature=0.8, max_new_tokens=min(SAMPLE_TOKENS, plan.context - len(prompt)), seed=derive(plan.seed, "sample", step) % 2**32,
        stop_token_ids=(tokenizer.eos_id,),
    )  # fmt: skip
    events = Engine(trainer.model, device=plan.device, backend="torch").generate([Request(prompt, settings)])
    written = [e.token_id for e in events if e.token_id not in (None, tokenizer.eos_id)]
    return tokenizer.decode(written).rstrip("\ufffd")  # the last token may end inside a character
