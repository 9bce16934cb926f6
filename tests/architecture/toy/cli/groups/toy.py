"""`spoolproof toy`: the toys there are."""

from __future__ import annotations

from spoolproof.cli.group import Group
from spoolproof.cli.options import AsJson
from spoolproof.cli.output import emit, table
from spoolproof.cli.store import with_store
from spoolproof.ports.toys import Toys


def ls(as_json: AsJson = False) -> None:
    """List the toys and whether they are broken."""
    found = with_store(lambda store: store.port(Toys).all())
    if as_json:
        emit("toy.ls", {"toys": dict(found)})
    else:
        table(("toy", "is broken"), list(found.items()))


GROUP = Group("toy", {"ls": ls}, "Toys that were played with lately.")
