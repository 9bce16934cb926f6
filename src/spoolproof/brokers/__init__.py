"""Brokers: each folder or file is one adapter of `ports.broker` and imports its one driver."""
