"""A task platform: profiles from a cache, notifications as a batch every five minutes, exports that may hang."""
