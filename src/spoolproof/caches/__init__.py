"""Adapters of `ports.cache.SharedCache`: Redis, and a file of this machine."""
