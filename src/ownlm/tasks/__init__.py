"""Rows of data for fine-tuning: their shapes, what is wrong with them, chat templates, what of them is trained.

`dataset.read_dataset` is the way in: files → rows of one type with their `file:line`.
"""
