"""`spoolproof version`: what runs here."""

from __future__ import annotations

import platform
from importlib import metadata

import spoolproof
from spoolproof.cli.group import Group
from spoolproof.cli.options import AsJson
from spoolproof.cli.output import emit, say
from spoolproof.wiring import sqlite_release

DRIVERS = ("pika", "asyncpg", "sqlalchemy", "uvloop")


def version(as_json: AsJson = False) -> None:
    """Print the versions of Spoolproof and of what it runs on."""
    versions = {"python": platform.python_version(), "sqlite": ".".join(map(str, sqlite_release())), **_drivers()}
    if as_json:
        emit("version", {"version": spoolproof.__version__, "with": versions})
        return
    say(f"spoolproof {spoolproof.__version__}")
    for name, value in versions.items():
        say(f"  {name} {value or 'not installed'}")


def _drivers() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in DRIVERS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


GROUP = Group("version", {"": version}, place=5)
