"""Training: examples packed into rows, losses on a decoder, one flat loop."""
