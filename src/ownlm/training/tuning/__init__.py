"""Fine-tuning: rows of a task instead of a corpus, on top of a model that exists."""
