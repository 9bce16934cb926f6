"""What every process has for those who work on dead letters: `service.dead_letters`."""

from __future__ import annotations

from spoolproof.codec import TypeRegistry
from spoolproof.dead_letters.desk import Desk, Tools
from spoolproof.dead_letters.edit import Decode
from spoolproof.lifecycle.entry import Context, Entry
from spoolproof.lifecycle.part import Part
from spoolproof.lifecycle.registrations import Facet, Host


class DeadLettersPart(Part):
    """Runs nothing; has what the verbs need."""

    def __init__(self, of: Context) -> None:
        decode = _decode_of(of.registrations.of(TypeRegistry))
        self.tools = Tools(store=of.store, clock=of.clock, ids=of.ids, decode=decode)


class DeadLettersFacet(Facet, Desk):
    """`service.dead_letters`: look at what was given up on, mend it, send it again. NotStarted before the start."""

    def __init__(self, host: Host) -> None:
        Facet.__init__(self, host)

    @property
    def decode(self) -> Decode:
        """What reads a message as this service does; it need not run."""
        return _decode_of(self.host.registrations.of(TypeRegistry))

    @property
    def _tools(self) -> Tools:
        return self.host.part(DeadLettersPart).tools


def _decode_of(registry: TypeRegistry) -> Decode:
    """Return what reads a message as a service of this registry does."""
    return lambda message: registry.decode(message, message.type)


DEAD_LETTERS = Entry(DeadLettersPart, DeadLettersFacet)
