"""Generated problems whose every step can be judged exactly."""
