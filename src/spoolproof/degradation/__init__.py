"""Less instead of nothing: ladders of cheaper answers, and levels at which less work is taken in."""
