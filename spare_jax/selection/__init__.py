"""From scored solutions to one answer: aggregate step scores, then vote or take the best."""
