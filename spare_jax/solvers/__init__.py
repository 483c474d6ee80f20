"""Programs that make solutions."""
