"""Data sets and worlds as tasks: how they are loaded, split into steps, answered and compared, and annotated."""
