"""Building dead letters from failures, and sending them again."""
