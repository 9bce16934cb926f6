"""Housekeeping that one process of a service does for all."""
