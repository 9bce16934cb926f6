"""A store in this process's memory: the ports' executable specification, for tests and simulations. One file per port.

Everything it keeps is one Tables. A transaction works on a copy and its COMMIT puts the copy in the place of the
original, so rollback is to do nothing. One lock serialises transactions, as SQLite's single writer does: a write
outside a transaction waits while one is open, and waits for ever if the opener awaits it.

The injected clock is the database's clock. Nothing here survives the process. There is no SQL: a handler under test
keeps its business rows in `tx.raw`, a dict that commits and rolls back with the rest.

Must change together: the ports, their conformance suites, and these files.
"""

from __future__ import annotations

from spoolproof.stores.memory.store import MemoryStore
from spoolproof.stores.memory.transaction import MemoryTransaction

__all__ = ["MemoryStore", "MemoryTransaction"]
