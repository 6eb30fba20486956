"""What a person sees: messages, exit codes, tables, progress, the command line made from plain functions."""
