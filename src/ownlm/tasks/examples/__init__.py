"""Data sets that are made here, offline, from what every machine has: Python's own source, dates and numbers."""
