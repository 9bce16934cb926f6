"""Messages of publishers that know nothing of Spoolproof: what their queue's handlers say they are.

Asked before anything else is done with a delivery, because type and id are what the inbox, retries and dead letters
know a message by. What is found out goes into the message itself, so a copy or a replay, which arrives under another
routing key, carries it along; a routing key that nobody knows yet is kept in a header for the release that does.

A message whose type a handler of the queue takes is taken at its word: none of ours is ever asked about.

Must never happen here: an error of the application's functions that ends anything but this one message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from spoolproof.caught import error_line, is_failure, tame
from spoolproof.codec import DecodeFailure, EventType, TypeRegistry
from spoolproof.consumer.handler import Handler
from spoolproof.consumer.router import Router
from spoolproof.consumer.work import Refusal
from spoolproof.errors import InvalidMessage
from spoolproof.message import OWN_HEADERS, Message, check_message, check_short_text
from spoolproof.ports.broker import Incoming

ROUTING_KEY: Final = "spoolproof-routing-key"
"""The routing key of a message that no type was found for yet; its dead letter keeps it."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """What the handlers of one queue say."""

    types: frozenset[str]
    keys: Mapping[str, EventType]
    translate: Callable[[Message], Message] | None
    names_ids: bool


class Foreign:
    """Reads foreign messages by the rules of their queue."""

    def __init__(self, router: Router, registry: TypeRegistry) -> None:
        self._router = router
        self._registry = registry
        rules = {queue: _rules_of(router.handlers(queue)) for queue in router.queues}
        self._rules = {queue: one for queue, one in rules.items() if one is not None}

    def read(self, delivery: Incoming) -> tuple[Message, Refusal | None]:
        """Return the message with what could be found out about it, and why it cannot be read, if it cannot."""
        message, rules = delivery.message, self._rules.get(delivery.queue)
        if rules is None or delivery.fault is not None:
            return message, None
        try:
            is_ours = message.type in rules.types
            if not is_ours:
                message = self._typed(message, delivery, rules)
            if rules.names_ids and not (is_ours and message.id):
                message = self._named(message, delivery.queue)
            return message, None
        except Refusal as refusal:
            return message, refusal

    def _typed(self, message: Message, delivery: Incoming, rules: _Rules) -> Message:
        if rules.translate is not None:
            message = _translated(message, rules.translate)
            if message.type in rules.types:
                return message
        kept = message.headers.get(ROUTING_KEY, delivery.routing_key)
        model = rules.keys.get(kept) if isinstance(kept, str) else None
        if model is not None:
            return msgspec.structs.replace(message, type=model.name, schemaversion=model.version)
        if rules.keys and kept and kept != delivery.queue:
            return msgspec.structs.replace(message, headers={**message.headers, ROUTING_KEY: kept})
        return message

    def _named(self, message: Message, queue: str) -> Message:
        """Give a message the id that its handler derives, if it derives one. The one it came with says little: several
        libraries make a new one for every publish."""
        type_name = self._router.type_of(queue, message)
        handler = self._router.handler_for(queue, type_name)
        if handler is None:
            return message
        id = None
        if handler.message_id is not None:
            try:
                payload = self._registry.decode(message, type_name)
            except DecodeFailure as error:
                raise Refusal(error.reason, str(error)) from error
            id = _given_id(handler.message_id, payload)
        if id is None and not message.id and handler.hashes_missing_id:
            id = hashlib.sha256(message.body).hexdigest()
        return message if id is None else msgspec.structs.replace(message, id=id)


def _rules_of(handlers: Sequence[Handler]) -> _Rules | None:
    names = any(handler.message_id is not None or handler.hashes_missing_id for handler in handlers)
    keys = {key: model for handler in handlers for key, model in handler.foreign_keys.items()}
    translate = next((handler.translate for handler in handlers if handler.translate is not None), None)
    if not (names or keys or translate):
        return None
    return _Rules(frozenset(name for handler in handlers for name in handler.types), keys, translate, names)


def _translated(message: Message, translate: Callable[[Message], Message]) -> Message:
    found = _asked(translate, message, "foreign")
    if not isinstance(found, Message):
        raise Refusal("decode", f"foreign={_name(translate)} returned {type(found).__qualname__}, not a Message")
    try:  # an id, a type and a source may be empty in what arrives, never in what is sent
        check_message(
            msgspec.structs.replace(found, id=found.id or "-", type=found.type or "-", source=found.source or "-")
        )
    except (InvalidMessage, TypeError, AttributeError) as error:
        raise Refusal("decode", f"foreign={_name(translate)} returned no valid Message: {error}") from error
    ours = {name: value for name, value in message.headers.items() if name in OWN_HEADERS or name == ROUTING_KEY}
    return msgspec.structs.replace(found, headers={**found.headers, **ours})


def _given_id(function: Callable[[Any], object], payload: object) -> str | None:
    found = _asked(function, payload, "message_id")
    if found is None or found == "":
        return None
    id = str(found)
    try:
        check_short_text("message_id", id)
    except InvalidMessage as error:
        raise Refusal("decode", f"message_id={_name(function)}: {error}") from error
    return id


def _asked(function: Callable[[Any], object], value: object, option: str) -> object:
    try:
        return function(value)
    except BaseException as error:  # it may raise anything; all of it is this message's fault
        if not is_failure(error):
            raise
        raise Refusal("decode", f"{option}={_name(function)} raised {error_line(error)}") from tame(error)


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)
