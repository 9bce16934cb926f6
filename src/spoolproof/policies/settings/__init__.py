"""Where settings come from, and what is impossible or doubtful about them."""
