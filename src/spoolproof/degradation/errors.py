"""Every error that degradation raises on purpose."""

from __future__ import annotations

from collections.abc import Sequence

from spoolproof.errors import RegistrationError, SpoolproofError


class DegradationError(SpoolproofError, ValueError):
    """A level, a criticality or a drill that cannot be."""

    code = "usage"


class LadderConfigError(RegistrationError):
    """A ladder is declared wrongly; `faults` lists all of them."""

    def __init__(self, ladder: str, faults: Sequence[str]) -> None:
        self.ladder = ladder
        self.faults = tuple(faults)
        super().__init__(f"ladder {ladder!r} is declared wrongly:\n" + "\n".join(f"  - {fault}" for fault in faults))


class DegradedError(SpoolproofError):
    """No rung of a ladder had an answer. reasons: of each rung tried or skipped, in their order; caused by the
    primary's error, if that was called."""

    def __init__(self, ladder: str, reasons: Sequence[tuple[str, str]]) -> None:
        self.ladder = ladder
        self.reasons = tuple(reasons)
        super().__init__(f"ladder {ladder!r}: no answer; " + "; ".join(f"{rung}: {why}" for rung, why in reasons))
