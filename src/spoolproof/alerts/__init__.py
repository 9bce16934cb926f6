"""Alerts: what is wrong, since when, what is safe meanwhile, and who was told."""
