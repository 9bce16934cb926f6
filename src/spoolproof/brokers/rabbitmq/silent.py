"""Kinds of messages that a queue without a leader leaves unanswered: pure bookkeeping.

A quorum queue without a leader confirms nothing, or nacks after a quarter of a minute. Its publishes would fill the
window, and everybody else would wait for them. A kind is a destination and a type. One whose publishes were overtaken
is watched; it is silent when others are confirmed and it is not. Of a silent kind one message at a time is tried, and
any confirm of it, a late one too, opens it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from spoolproof import limits
from spoolproof.destination import Destination
from spoolproof.message import Outgoing

NO_LEADER: Final = "its queue confirms nothing while others do; it has no leader, or none that this node can reach"


_Kind = tuple[Destination, str]


class SilentKinds:
    """Which kinds are silent, which message of each is being tried, and which kinds are watched."""

    def __init__(self) -> None:
        self._trials: dict[_Kind, str | None] = {}
        self._watched: dict[_Kind, bool] = {}  # whether others were confirmed since

    def __bool__(self) -> bool:
        return bool(self._trials or self._watched)

    def holds(self, outgoing: Outgoing) -> bool:
        """Whether its kind is silent."""
        return _kind(outgoing) in self._trials

    def add(self, outgoing: Outgoing) -> None:
        """Its kind is silent; so was the one being tried."""
        if len(self._trials) < limits.SILENT_KINDS_MAX or self.holds(outgoing):
            self._trials[_kind(outgoing)] = None

    def judge(self, overtaken: Iterable[Outgoing]) -> bool:
        """Take in what was overtaken so far; True when a kind of it is silent, or its trial was in vain."""
        watched: dict[_Kind, bool] = {}
        is_any_silent = False
        for outgoing in overtaken:
            kind = _kind(outgoing)
            if self._watched.get(kind, False) or kind in self._trials:
                self.add(outgoing)
                is_any_silent = True
            else:
                watched[kind] = False
        self._watched = watched
        return is_any_silent

    def admit(self, outgoing: Outgoing) -> bool:
        """Whether it may be sent: its kind is not silent, or it is now the one being tried."""
        kind = _kind(outgoing)
        if kind not in self._trials:
            return True
        if self._trials[kind] is None:
            self._trials[kind] = outgoing.message.id
        return self._trials[kind] == outgoing.message.id

    def answered(self, settled: Iterable[Outgoing], is_ack: bool) -> None:
        """The broker spoke of these."""
        kinds = {_kind(one): one.message.id for one in settled}
        self._watched = {kind: True for kind in self._watched if kind not in kinds}
        for kind, message_id in kinds.items():
            if is_ack:
                self._trials.pop(kind, None)
            elif self._trials.get(kind) == message_id:
                self._trials[kind] = None

    def forget_trials(self) -> None:
        """The channel they were sent on is gone."""
        self._trials = dict.fromkeys(self._trials)
        self._watched.clear()


def _kind(outgoing: Outgoing) -> _Kind:
    return outgoing.destination, outgoing.message.type
