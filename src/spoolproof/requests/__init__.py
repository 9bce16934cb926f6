"""Asking for an answer: requests over the broker, and the queue that one process hears the answers in."""
