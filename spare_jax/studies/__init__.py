"""Studies: tables and markdown of what was measured for docs/results."""
