"""Judges: each turns a problem and a solution (and gold, if it needs it) into a Judgement."""
