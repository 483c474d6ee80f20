"""Studies: what was measured for docs/results, as stages of their own configs."""
