"""One file a noun: its commands and what they print. A new file with a `GROUP` is a new noun."""
