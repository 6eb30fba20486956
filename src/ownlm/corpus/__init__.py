"""Raw text to token shards: reading, cleaning, deduplication, the tokenizer, encoding."""
