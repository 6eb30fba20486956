"""Search in documents: cut into passages, found by BM25 and the nearness of the question's words.

`cache.open_index` gives the index of a file, folder or corpus; `ranking.search` asks it.
"""
