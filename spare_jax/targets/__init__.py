"""What judgements are turned into to be learned: labels, targets of verifications, preferences."""
