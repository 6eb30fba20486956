"""The pipelines of transformers 4 over loaded models: the same calls, the same shapes of results."""
