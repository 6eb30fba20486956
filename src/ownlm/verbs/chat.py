"""`ownlm chat`: talk to a model that was taught to chat."""

from __future__ import annotations

import shlex
from typing import Any

from ownlm.console.errors import Refused
from ownlm.console.settings import verb


@verb
def chat(model: Any) -> None:
    """Talk to a model that was taught to chat.

    A model that was trained on text alone continues text: asked a question it goes on as such a text would.

    Args:
        model: a run or checkpoint folder, `last` (the newest run below this folder), or a name on the hub.
    """
    from ownlm import __version__
    from ownlm.loaded import read_run, resolve

    path = resolve(model)  # before torch is loaded: a wrong name is said at once
    from ownlm.corpus.tokenizer import Tokenizer
    from ownlm.masked import mask_token
    from ownlm.model.checkpoint import read_config
    from ownlm.model.encoder_families import fills_masks

    run = read_run(path)
    taught = [str(what) for what in run.get("taught", ["continues text"])]
    place = shlex.quote(str(path))
    if "chat" in taught:
        raise Refused(
            f"made by ownlm {run.get('ownlm')}; this is ownlm {__version__}, which does not chat.",
            where=path,
            do="pip install --upgrade ownlm",
        )
    if (path / "config.json").is_file() and fills_masks(read_config(path)):
        gap = shlex.quote(f"The river runs to the {mask_token(Tokenizer.load(path), path)}.")
        raise Refused(
            "a masked model, which does not chat. What it does: fills masks.",
            where=path,
            why="It reads a whole text at once, and says what stands in a gap of it.",
            do=f"ownlm generate {place} {gap}",
        )
    raise Refused(
        f"this model was not taught to chat. What it does: {', '.join(taught)}.",
        where=path,
        why="It learned from text alone: it writes on from a beginning, in the style of that text, and takes "
        "a question for such a beginning.",
        do=f'ownlm generate {place} "The beginning of a text"',
    )
