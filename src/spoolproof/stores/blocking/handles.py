"""A user's own open transaction, as one function that runs a statement in it, on the caller's thread.

Taken by what they are called, so that nobody's driver is imported: Django's connections, SQLAlchemy's sessions and
connections, psycopg's (2 and 3) and `sqlite3`'s connections.

Never here: commit, rollback, close.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from spoolproof.errors import NotInTransaction, UnsupportedTransaction, WrongDatabase
from spoolproof.stores import sqlalchemy_handles

Dialect = Literal["sqlite", "postgresql"]

SUPPORTED = (
    "django.db.connection",
    *sqlalchemy_handles.SUPPORTED[2:],
    "psycopg.Connection",
    "psycopg2's connection",
    "sqlite3.Connection",
)
_PARAMETER = re.compile(r"\$(\d+)")


class Run(Protocol):
    """Runs one statement with `$1`, `$2` …; returns its rows, or how many it changed."""

    def __call__(self, sql: str, *args: object) -> _Result: ...


@dataclass(frozen=True, slots=True)
class _Result:
    rows: Sequence[Sequence[Any]]
    changed: int


@dataclass(frozen=True, slots=True)
class Handle:
    """run: in the transaction. driver: the driver's own connection, which outlives it."""

    run: Run
    driver: object


def open_handle(handle: Any, dialect: Dialect) -> Handle:
    """Return the way into an open transaction. Raises UnsupportedTransaction, NotInTransaction, WrongDatabase."""
    home = {kind.__module__.partition(".")[0] for kind in type(handle).__mro__}
    if "sqlalchemy" in home:
        return _sqlalchemys(handle, dialect)
    if "django" in home and hasattr(handle, "in_atomic_block"):
        return _djangos(handle, dialect)
    if "sqlite3" in home and hasattr(handle, "in_transaction"):
        return _sqlites(handle, dialect)
    if home & {"psycopg", "psycopg2"} and hasattr(handle, "cursor") and not hasattr(handle, "__aenter__"):
        return _psycopgs(handle, dialect)
    raise UnsupportedTransaction(handle, SUPPORTED)


def _sqlalchemys(handle: Any, dialect: Dialect) -> Handle:
    connection = sqlalchemy_handles.adopt_blocking(handle, dialect=dialect)

    def run(sql: str, *args: object) -> _Result:
        result = sqlalchemy_handles.execute_blocking(connection, sql, args)
        return _Result([tuple(row) for row in result] if result.returns_rows else (), result.rowcount)

    return Handle(run, connection.connection.driver_connection)


def _djangos(handle: Any, dialect: Dialect) -> Handle:
    _check_dialect(handle, {"sqlite": "sqlite", "postgresql": "postgresql"}.get(handle.vendor, handle.vendor), dialect)
    if not handle.in_atomic_block and handle.get_autocommit():
        raise NotInTransaction(
            "transaction=django.db.connection has no open transaction; publish inside: with transaction.atomic()"
        )

    def run(sql: str, *args: object) -> _Result:
        with handle.cursor() as cursor:
            return _executed(cursor, *_pyformat(sql, args))

    handle.ensure_connection()
    return Handle(run, handle.connection)


def _psycopgs(handle: Any, dialect: Dialect) -> Handle:
    _check_dialect(handle, "postgresql", dialect)
    status = handle.info.transaction_status
    if handle.autocommit and not status:
        raise NotInTransaction(
            f"transaction={_kind(handle)} has no open transaction; publish inside: with connection.transaction()"
        )

    def run(sql: str, *args: object) -> _Result:
        with handle.cursor() as cursor:
            return _executed(cursor, *_pyformat(sql, args))

    return Handle(run, handle)


def _sqlites(handle: Any, dialect: Dialect) -> Handle:
    _check_dialect(handle, "sqlite", dialect)
    if not handle.in_transaction:
        raise NotInTransaction(
            "transaction=sqlite3.Connection has no open transaction; publish after "
            "connection.execute('BEGIN IMMEDIATE') and before connection.commit()"
        )

    def run(sql: str, *args: object) -> _Result:
        cursor = handle.cursor()
        cursor.row_factory = None  # a user's own connection may make other rows
        return _executed(cursor, sql, {str(number): value for number, value in enumerate(args, 1)})

    return Handle(run, handle)


def _executed(cursor: Any, sql: str, values: Mapping[str, object] | None) -> _Result:
    cursor.execute(sql, values)
    return _Result([tuple(row) for row in cursor.fetchall()] if cursor.description else (), cursor.rowcount)


def _pyformat(sql: str, args: Sequence[object]) -> tuple[str, Mapping[str, object] | None]:
    if not args:
        return sql, None
    text = _PARAMETER.sub(r"%(p\1)s", sql.replace("%", "%%"))
    return text, {f"p{number}": value for number, value in enumerate(args, 1)}


def _check_dialect(handle: object, found: str, dialect: Dialect) -> None:
    if found != dialect:
        raise WrongDatabase(
            f"transaction={_kind(handle)} is on {found}, the service's store is {dialect}; pass a transaction of the "
            "store's database, or point SPOOLPROOF_STORE at yours"
        )


def _kind(handle: object) -> str:
    return f"{type(handle).__module__}.{type(handle).__qualname__}"
