"""What a model is shown and how its answer is read, side by side: one file per task that a model is given."""
