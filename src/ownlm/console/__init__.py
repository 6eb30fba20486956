"""What a person sees: messages, exit codes, tables, progress, and the command line built from plain functions."""
