"""Publishes on one channel with confirms, as fast as the window allows, and answers each exactly once.

A fresh channel carries one publish at a time until it has confirmed one: after a reconnect during an alarm the broker
says "blocked" only once something was published. After the broker closed a channel over some message, or lines were
lost again and again, the publishes that were on their way go one at a time, so that the message at fault is alone when
it does it again (`suspects.py`); its neighbours are unknown, never blamed.

No permission, no exchange, or a queue of our own that is gone is not the message's fault: it is barred, and goes on
when the broker lets it; what is missing of our own is declared again.

A queue without a leader confirms nothing, and nacks late: what goes to it is barred once others overtook it, and from
then on one message of its kind at a time is tried, which keeps nobody waiting (`silent.py`).

Blocked: the window is kept and its timers stand still, because the broker confirms what it has read once it goes on.

Must never happen: a publish before Select-Ok; an answer from anything but a confirm frame, a closed channel or a time
limit; a sink called from within submit(), or twice for one publish.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pika import spec

from spoolproof import limits
from spoolproof.brokers.barred import BarredKinds
from spoolproof.brokers.rabbitmq.encoding import publish_frames
from spoolproof.brokers.rabbitmq.events import ChannelReplaced, PublishChannelClosed, SinkFailed
from spoolproof.brokers.rabbitmq.failure import ENCODE_ERRORS, end_code, one_line
from spoolproof.brokers.rabbitmq.pika_internals import Connection
from spoolproof.brokers.rabbitmq.properties import to_properties
from spoolproof.brokers.rabbitmq.rpc import ChannelClosed, RpcChannel, closed_by, guarded
from spoolproof.brokers.rabbitmq.silent import NO_LEADER, SilentKinds
from spoolproof.brokers.rabbitmq.suspects import Suspects
from spoolproof.brokers.rabbitmq.topology import is_expected, route_of
from spoolproof.brokers.rabbitmq.unanswered import Entry, Unanswered, answer_of, by_sink
from spoolproof.clock import Clock
from spoolproof.errors import BrokerBlocked, BrokerUnavailable, EncodeError, WindowFull
from spoolproof.message import Outgoing
from spoolproof.ports.broker import (
    CONFIRMED,
    Barred,
    PublishOutcome,
    Refused,
    Returned,
    Sink,
    Spawn,
    Topology,
    Unknown,
)
from spoolproof.telemetry.events import emit
from spoolproof.telemetry.folding import Folded

_ACCESS_REFUSED, _NOT_FOUND = 403, 404


class Shared:
    """What the senders of one process know together: a message at fault may be sent by any of them."""

    def __init__(self, clock: Clock) -> None:
        self.suspects = Suspects()
        self.barred = BarredKinds(clock)
        self.changed = asyncio.Event()  #: there may be room


async def has_room_within(seconds: float, room: Callable[[], int], changed: asyncio.Event) -> bool:
    """Return True as soon as there is room, or False after the time. changed: set whenever that may be."""
    try:
        async with asyncio.timeout(seconds):
            while room() <= 0:
                changed.clear()
                await changed.wait()
    except TimeoutError:
        return room() > 0
    return True


class Sender:
    """The user of the publish connection."""

    def __init__(
        self,
        *,
        topology: Topology,
        clock: Clock,
        spawn: Spawn,
        abort: Callable[[str], None],
        missing: Callable[[], None],
        shared: Shared,
    ) -> None:
        """abort: gives up the connection. missing: told when something of the topology seems to be gone. shared: with
        the senders of the other publish connections."""
        self._route = route_of(topology.service, topology.exchange)
        self._is_expected = is_expected(topology)
        self._clock = clock
        self._folded = Folded(clock)
        self._abort = abort
        self._missing = missing
        self._spawn = spawn
        self._connection: Connection | None = None
        self._channel: Any = None  # usable: open and confirming
        self._unanswered = Unanswered()
        self._waiting: dict[str, deque[Entry]] = {}  # behind an unanswered publish of the same id; bounded by room()
        self._waiting_count = 0
        self._aside: deque[str] = deque()  # of those that wait, the suspects: they go after others
        self._suspects = shared.suspects
        self._barred = shared.barred
        self._silent = SilentKinds()
        self._singly = 1  # confirms to see before the window opens
        self._unheeded = 0  # publishes so old that the next need not wait for them, where they go singly
        self._has_confirmed = False  # on this channel
        self._is_allowed = False
        self._is_blocked = False
        self._answered_at = 0.0
        self._unanswered_issue: str | None = None
        self._changed = shared.changed

    # --- the port's half ---------------------------------------------------------------------------------------------

    def submit(self, outgoing: Outgoing, token: object, sink: Sink) -> None:
        """Write one publish. See ports.broker."""
        if self._channel is None or not self._is_allowed:
            raise BrokerUnavailable("not connected to the broker")
        if self._is_blocked:
            raise BrokerBlocked("the broker has stopped reading publishes (memory or disk alarm)")
        if self.room() <= 0:
            count = len(self._unanswered) + self._waiting_count
            raise WindowFull(count, self._limit(), "wait for room()")
        entry = Entry(outgoing, token, sink, self._clock.monotonic())
        if self._silent and not self._silent.admit(outgoing):
            loop = asyncio.get_running_loop()
            loop.call_soon(self._answer, [(entry, Barred(NO_LEADER))])
        elif self.holds(entry.id):
            self._put_off(entry)
        elif self._must_go_alone(entry):
            self._put_off(entry)
            self._aside.append(entry.id)
        else:
            try:
                self._write(entry)
            except (BrokerUnavailable, EncodeError):
                if self._silent.holds(outgoing):
                    self._silent.add(outgoing)  # it was not tried after all
                raise

    def holds(self, message_id: str) -> bool:
        """Whether a publish of that id is on its way here, or was answered as unknown and may still be confirmed."""
        return message_id in self._unanswered or message_id in self._waiting

    @property
    def is_open(self) -> bool:
        """Whether it would publish, if there is room."""
        return self._channel is not None and self._is_allowed

    @property
    def is_blocked(self) -> bool:
        """Whether the broker has stopped reading this connection."""
        return self._is_blocked

    @property
    def is_in_doubt(self) -> bool:
        """Whether it looks for a message that ends channels."""
        return self._singly > 1 and self.is_open

    def room(self) -> int:
        """Return how many submits would be taken now."""
        if self._channel is None or self._is_blocked or not self._is_allowed:
            return 0
        if self._unanswered.size_bytes >= limits.PUBLISH_WINDOW_BYTES_MAX:
            return 0
        return max(0, self._limit() - len(self._unanswered) - self._waiting_count + len(self._aside))

    async def wait_for_room(self, timeout_seconds: float) -> bool:
        """Return True as soon as room() is above 0, or False after the time."""
        return await has_room_within(timeout_seconds, self.room, self._changed)

    def allow(self) -> None:
        """Begin to take publishes: the topology they go to was declared."""
        self._is_allowed = True
        self._changed.set()

    # --- the connection's half ---------------------------------------------------------------------------------------

    async def opened(self, connection: Connection) -> None:
        """Open a channel. Raises ChannelClosed or BrokerUnavailable."""
        self._connection = connection
        await self._open_channel(connection)

    def lost(self, reason: str) -> None:
        """Answer everything on its way as unknown."""
        self._connection = None
        self._is_blocked = False
        self._end_channel(Unknown(reason))

    def blocked(self, is_blocked: bool) -> None:
        """Stop or go on; what is on its way stays."""
        self._is_blocked = is_blocked
        if not is_blocked:
            self._answered_at = self._clock.monotonic()
            self._unanswered.restart_timers(self._answered_at)
            self._changed.set()

    def tick(self) -> None:
        """Look after time limits; called every second."""
        if self._connection is None or self._channel is None or self._is_blocked:
            return
        now = self._clock.monotonic()
        oldest = self._unanswered.oldest_since()
        if oldest is not None and now - max(oldest, self._answered_at) >= limits.CONFIRM_SECONDS:
            reason = f"no confirm for {limits.CONFIRM_SECONDS:g} s"
            self._unanswered_issue = f"publishing: {reason}; that connection was given up and the next URL is tried"
            for entry in self._unanswered.older_than(now - limits.CONFIRM_SECONDS):
                self._silent.add(entry.outgoing)  # on the next connection it stands in nobody's way
            self._give_up(reason)
            return
        self._expire(now - limits.CONFIRM_SECONDS)
        if self._channel is not None:
            self._bar_silent(now - limits.QUEUE_SILENT_SECONDS)
        if self._singly:
            self._unheeded = len(self._unanswered.older_than(now - limits.FRESH_CHANNEL_SECONDS))
            self._changed.set()
        if self._aside and now - self._waiting[self._aside[0]][0].since >= limits.SUSPECT_WAIT_SECONDS:
            answers: list[tuple[Entry, PublishOutcome]] = []
            self._write_aside(answers)  # nothing else wants to go first
            self._answer(answers)

    def issues(self) -> list[str]:
        """Return a sentence for everything that waits for the broker."""
        return [*([self._unanswered_issue] if self._unanswered_issue else []), *self._barred.issues()]

    # --- channels ----------------------------------------------------------------------------------------------------

    async def _open_channel(self, connection: Connection) -> None:
        """Open a confirming channel; nothing is published before Select-Ok."""
        channel = await RpcChannel.open(connection)
        pika = channel.pika
        # bound to its channel: a confirm that still arrives on a replaced one must not settle tags of the next
        pika.add_on_return_callback(guarded(self._on_return))
        await channel.call("confirm_delivery", ack_nack_callback=guarded(partial(self._on_confirm, pika)))
        pika.add_on_close_callback(guarded(self._on_channel_close))
        if connection is self._connection:
            self._singly = max(1, self._singly)
            self._has_confirmed = False
            self._channel = pika
            self._changed.set()

    async def _reopen_channel(self, connection: Connection) -> None:
        try:
            await self._open_channel(connection)
        except (BrokerUnavailable, ChannelClosed) as error:
            if connection is self._connection:
                self._abort(f"no new channel: {error}")

    def _replace_channel(self, unknown: Unknown, blame: tuple[Entry, PublishOutcome] | None = None) -> None:
        channel, connection = self._channel, self._connection
        self._end_channel(unknown, blame)
        if channel.is_open:
            channel.close()
        if connection is not None and connection.is_open:
            self._spawn(self._reopen_channel(connection), "rabbitmq.publish_channel")

    # --- write -------------------------------------------------------------------------------------------------------

    def _limit(self) -> int:
        has_suspect = self._aside and self._has_confirmed  # the window runs empty for it
        return 1 + self._unheeded if self._singly or has_suspect else limits.PUBLISH_WINDOW

    def _put_off(self, entry: Entry) -> None:
        self._waiting.setdefault(entry.id, deque()).append(entry)
        self._waiting_count += 1

    def _must_go_alone(self, entry: Entry) -> bool:
        """Whether it may end the channel, and then others that are on their way; suspects also go after others."""
        if self._barred.holds(entry.outgoing):
            self._singly = max(1, self._singly)
            return len(self._unanswered) > 0
        return entry.id in self._suspects and self._suspects.is_repeating(self._clock.monotonic())

    def _write(self, entry: Entry) -> None:
        """Encode an entry, then write it: an encode error takes no tag."""
        channel, outgoing = self._channel, entry.outgoing
        if not channel.is_open:
            raise BrokerUnavailable("not connected to the broker: the publish channel is closing")
        try:
            exchange, routing_key = self._route(outgoing)
            frames = publish_frames(
                channel.channel_number,
                exchange,
                routing_key,
                to_properties(outgoing.message),
                outgoing.message.body,
                frame_max=channel.connection.params.frame_max,
            )
        except ENCODE_ERRORS as error:
            raise EncodeError(f"message {entry.id!r} does not fit AMQP: {one_line(error)}") from error
        channel.connection.write(frames)
        self._unanswered.add(entry)

    def _write_next(self, message_id: str, answers: list[tuple[Entry, PublishOutcome]]) -> None:
        """Send the publish that waited for the answer to another one of its id."""
        waiting = self._waiting.get(message_id)
        if waiting is None:
            return
        entry = waiting.popleft()
        self._waiting_count -= 1
        if not waiting:
            del self._waiting[message_id]
        try:
            self._write(entry)
        except (BrokerUnavailable, EncodeError) as error:
            # submit() has returned long ago; unknown is safe: tried again, an encode error then reaches its caller
            answers.append((entry, Unknown(str(error))))

    def _write_aside(self, answers: list[tuple[Entry, PublishOutcome]]) -> None:
        """Send the next suspect, if it is then alone on its way."""
        while self._aside and not len(self._unanswered):
            self._singly = max(1, self._singly)
            self._write_next(self._aside.popleft(), answers)

    # --- answers -----------------------------------------------------------------------------------------------------

    def _on_confirm(self, channel: Any, frame: Any) -> None:
        if channel is not self._channel:
            return
        method = frame.method
        is_ack = isinstance(method, spec.Basic.Ack)
        settled = self._unanswered.settle(method.delivery_tag, method.multiple)
        if self._singly:
            self._singly = max(0, self._singly - len(settled))
        self._has_confirmed = True
        self._unheeded = 0
        self._unanswered_issue = None
        self._answered_at = self._clock.monotonic()
        answers = [(entry, self._judged(entry, is_ack)) for entry in settled if not entry.is_late]
        if self._suspects:
            for entry in settled:
                self._suspects.acquit(entry.id)
        if self._silent:
            self._hear(settled, is_ack)
        if self._waiting:
            for entry in settled:
                self._write_next(entry.id, answers)
            self._write_aside(answers)
        self._answer(answers)

    def _judged(self, entry: Entry, is_ack: bool) -> PublishOutcome:
        outcome = answer_of(entry, is_ack)
        if isinstance(outcome, Returned) and self._is_expected(entry.outgoing):
            self._missing()
            return self._bar(entry, f"{outcome.detail}; this service's own, it is declared again")
        if self._barred and outcome is CONFIRMED:
            self._barred.confirm(entry.outgoing)
        return outcome

    def _hear(self, settled: Iterable[Entry], is_ack: bool) -> None:
        """Note what the answer to a late publish or a trial says of its kind."""
        self._silent.answered([entry.outgoing for entry in settled], is_ack)
        if is_ack and self._barred:
            for entry in settled:
                self._barred.confirm(entry.outgoing)

    def _bar_silent(self, before: float) -> None:
        """Bar the kinds that are silent, and answer all of them that are on their way."""
        overtaken = self._unanswered.older_than(before, overtaken=True)
        if not self._silent.judge(entry.outgoing for entry in overtaken):
            return
        silent = [entry for entry in self._unanswered.unanswered() if self._silent.holds(entry.outgoing)]
        self._unanswered.make_late(silent)
        for entry in silent:
            self._barred.bar(entry.outgoing, NO_LEADER, is_harmless=True)
        self._answer([(entry, Barred(NO_LEADER)) for entry in silent])
        self._replace_if_too_late()

    def _bar(self, entry: Entry, detail: str) -> Barred:
        self._barred.bar(entry.outgoing, detail)
        return Barred(detail)

    def _on_return(self, channel: Any, method: Any, properties: Any, _body: bytes) -> None:
        if channel is not self._channel:
            return
        detail = f"{method.reply_code} {method.reply_text}: exchange={method.exchange!r} key={method.routing_key!r}"
        if not self._unanswered.mark_returned(properties.message_id or "", detail):
            self._give_up("the broker returned a message that is not on its way")

    def _on_channel_close(self, channel: Any, reason: BaseException) -> None:
        if channel is not self._channel:
            return
        closed, code = closed_by(reason), end_code(reason)
        if closed.code:
            unanswered = len(self._unanswered)
            self._folded.emit(PublishChannelClosed(unanswered=unanswered, code=closed.code, error=str(closed)))
        if closed.code == _NOT_FOUND:
            self._missing()
        blame = None if code is None else self._blame(code, closed)
        self._replace_channel(Unknown(str(closed), is_silence=not closed.code), blame)

    def _blame(self, code: int, closed: ChannelClosed) -> tuple[Entry, PublishOutcome] | None:
        """Say what the end of a channel means for the one publish that was on its way, if it was one.

        code: what the broker ended channel or connection with. closed: with a code of its own if only the channel.
        """
        unanswered = self._unanswered.unanswered()
        if not unanswered:
            return None
        now = self._clock.monotonic()
        self._suspects.cut_off(now)
        if code or self._suspects.is_repeating(now):
            self._singly = max(self._singly, len(unanswered))
        if len(unanswered) > 1:
            return None
        entry = unanswered[0]
        if closed.code in (_ACCESS_REFUSED, _NOT_FOUND):
            return entry, self._bar(entry, str(closed))
        if self._suspects.was_alone(entry.id, code, after_others=self._has_confirmed):
            return entry, Refused(code, str(closed))
        return None

    def _expire(self, before: float) -> None:
        detail = f"no confirm within {limits.CONFIRM_SECONDS:g} s"
        expired = self._unanswered.older_than(before)
        self._unanswered.make_late(expired)
        for message_id, waiting in list(self._waiting.items()):
            while waiting and waiting[0].since < before:
                expired.append(waiting.popleft())  # never written: it is simply let go
                self._waiting_count -= 1
            if not waiting:
                del self._waiting[message_id]
        self._aside = deque(message_id for message_id in self._aside if message_id in self._waiting)
        for entry in expired:
            if self._silent.holds(entry.outgoing):
                self._silent.add(entry.outgoing)
        self._answer([(entry, Unknown(detail)) for entry in expired])
        self._replace_if_too_late()

    def _replace_if_too_late(self) -> None:
        if self._unanswered.late >= limits.LATE_CONFIRMS_MAX:
            emit(ChannelReplaced(unanswered=self._unanswered.late))
            detail = "other confirms of its channel came too late; it was replaced"
            self._replace_channel(Unknown(detail, is_silence=False))

    def _end_channel(self, unknown: Unknown, blame: tuple[Entry, PublishOutcome] | None = None) -> None:
        """Answer everything of this channel; from here submit() refuses until a new one is there."""
        self._channel = None
        self._unheeded = 0
        self._silent.forget_trials()
        unanswered = self._unanswered.unanswered()
        for waiting in self._waiting.values():
            unanswered.extend(waiting)
        self._unanswered = Unanswered()
        self._waiting.clear()
        self._waiting_count = 0
        self._aside.clear()
        culprit, verdict = blame or (None, unknown)
        self._answer([(entry, verdict if entry is culprit else unknown) for entry in unanswered])

    def _give_up(self, reason: str) -> None:
        """Abort the connection. Frames already read are still handed to us: nothing may be believed from here on."""
        self._end_channel(Unknown(reason))
        self._abort(reason)

    def _answer(self, answers: Iterable[tuple[Entry, PublishOutcome]]) -> None:
        for sink, results in by_sink(answers).items():
            try:
                sink(results)
            except Exception as error:
                emit(SinkFailed(results=len(results)), error=error)
        self._changed.set()
