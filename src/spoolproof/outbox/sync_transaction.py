"""The transaction of a handler that is a plain function: that of its attempt, asked from the handler's thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

from spoolproof.outbox.options import PublishOptions
from spoolproof.outbox.publish import Bridge
from spoolproof.outbox.receipt import Receipt
from spoolproof.outbox.transaction import Transaction
from spoolproof.ports.transaction import Row


class SyncTransaction:
    """As Transaction, for a handler that is a `def`. It commits when the handler returns; use it in its thread only."""

    def __init__(self, tx: Transaction, bridge: Bridge) -> None:
        self._tx = tx
        self._bridge = bridge

    def execute(self, sql: str, *args: object) -> int:
        """Run one statement with parameters `$1`, `$2` …; returns how many rows it changed."""
        return self._bridge(lambda: self._tx.execute(sql, *args))

    def fetch(self, sql: str, *args: object) -> Sequence[Row]:
        """Run one query with parameters `$1`, `$2` …; returns its rows, each a mapping from column to value."""
        return self._bridge(lambda: self._tx.fetch(sql, *args))

    def fetch_one(self, sql: str, *args: object) -> Row | None:
        """Run one query; returns its first row or None."""
        return self._bridge(lambda: self._tx.fetch_one(sql, *args))

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Open a savepoint: `with tx.savepoint(): …`. See `Transaction.savepoint`."""
        inner: Any = self._tx.savepoint()
        self._bridge(inner.__aenter__)
        try:
            yield
        except BaseException as error:
            raised = (type(error), error, error.__traceback__)
            if not self._bridge(lambda: inner.__aexit__(*raised)):
                raise
        else:
            self._bridge(lambda: inner.__aexit__(None, None, None))

    def cancel(self, id: str) -> bool:
        """Take back, with this transaction, a message that is scheduled. See `Transaction.cancel`."""
        return self._bridge(lambda: self._tx.cancel(id))

    def publish(self, payload: object, **options: Unpack[PublishOptions]) -> Receipt:
        """Publish with this transaction. See `Transaction.publish`."""
        return self._bridge(lambda: self._tx.publish(payload, **options))
