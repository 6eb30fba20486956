"""One Transformer described by one config, its Hugging Face folder form, and its counters. Knows no text."""
