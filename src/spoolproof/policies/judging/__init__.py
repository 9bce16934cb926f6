"""What an end means: one verdict for each attempt, and what to do at the end of a call."""
