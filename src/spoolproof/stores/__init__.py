"""Databases that keep the outbox, the inbox and all the rest. One adapter each; none imports another."""
