"""Using a model: token ids and sampling settings in, events out. Knows nothing of text beyond token ids."""

from ownlm.engine.engine import Engine
from ownlm.engine.requests import Event, Request, SamplingSettings

__all__ = ["Engine", "Event", "Request", "SamplingSettings"]
