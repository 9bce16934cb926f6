"""Toys: they are wound up by the process that leads, and may break."""
