"""Webhooks: events as signed HTTP requests to endpoints, attempted for three days, and dead letters after that.

`verify` is for those who receive them, and needs nothing of the rest.
"""

from __future__ import annotations

from spoolproof.webhooks.signature import verify

__all__ = ["verify"]
