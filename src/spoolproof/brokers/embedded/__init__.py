"""The broker that needs no server: an SQLite file shared by the services of one machine."""

from __future__ import annotations

from spoolproof.brokers.embedded.broker import EmbeddedBroker

__all__ = ["EmbeddedBroker"]
