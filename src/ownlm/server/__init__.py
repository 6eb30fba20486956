"""The HTTP server: what other people's clients speak, answered by one engine."""
