"""Handing a model on: other dtypes and shards, other formats, the hub."""
