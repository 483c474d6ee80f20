"""A run over a work directory: its config, its problems, its models, its stages, and any judge by its name."""
