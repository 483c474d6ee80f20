"""Pure metrics and statistics. A rate is a fraction in [0, 1]; what is undefined is None, never NaN."""
