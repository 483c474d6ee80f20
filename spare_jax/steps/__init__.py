"""Where a text is cut into steps; nothing of it is lost."""
