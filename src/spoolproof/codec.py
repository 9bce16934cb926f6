"""Typed payloads to bytes and back, under stable wire names and versions.

A model is a msgspec Struct, a dataclass, a pydantic model, or `dict` for payloads without a model. `@event` marks a
class with its wire name; nothing is kept in a process-wide table, so two services in one process do not meet. A
service's TypeRegistry knows the types it handles; two models for one wire name are refused when the second arrives.

The wire name is part of the contract with other services and never derived from a Python path: moving a class must
not change what is on the wire.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import msgspec

from spoolproof.caught import error_line, is_failure, tame
from spoolproof.errors import CodecError, RegistrationError, UnknownType
from spoolproof.message import Message
from spoolproof.roundtrip import lost_in, reason_of, unsendable

EVENT_MARK = "__spoolproof_event__"  #: the attribute that `event` gives a class
_WIRE = "__spoolproof_wire__"  #: what writes and reads the class, made at its first publish
_WIRE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,254}")
T = TypeVar("T")

_encode = msgspec.json.Encoder().encode
_Wire = tuple[Callable[[Any], bytes], Callable[[bytes], object]]
_PLAIN: _Wire = (_encode, msgspec.json.Decoder(dict[str, Any]).decode)

Upcast = Callable[[dict[str, Any]], dict[str, Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class EventType:
    """The wire identity of a model: its name, its version (1 or more), and whether nobody may be listening."""

    name: str
    version: int = 1
    may_be_unrouted: bool = False


def event(name: str, *, version: int = 1, may_be_unrouted: bool = False) -> Callable[[type[T]], type[T]]:
    """Give a payload class its stable wire name.

    name: letters, digits and `_ . : / -`, at most 255. version: of the payload's schema, 1 or more.
    may_be_unrouted: True if a message that no queue is bound for counts as delivered.
    Raises RegistrationError for a bad name or version, or a class that is no Struct, dataclass or pydantic model.
    """
    if isinstance(name, type):
        raise RegistrationError(f"@event on {name.__qualname__} has no wire name; write @event('your.event.name')")
    if not isinstance(name, str) or not _WIRE_NAME.fullmatch(name):
        raise RegistrationError(f"event name {name!r}: use letters, digits and _ . : / - (at most 255), no spaces")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise RegistrationError(f"event {name!r}: version={version!r} must be a whole number from 1")

    def mark(model: type[T]) -> type[T]:
        if not is_model(model):
            raise RegistrationError(
                f"@event({name!r}) on {model!r}: the class must be a msgspec.Struct, a dataclass or a pydantic model; "
                "put @event above @dataclass"
            )
        identity = EventType(name, version, may_be_unrouted)
        known = model.__dict__.get(EVENT_MARK, identity)
        if known != identity:
            raise RegistrationError(f"@event({name!r}) on {model.__qualname__}: it is @event({known.name!r}) already")
        setattr(model, EVENT_MARK, identity)
        return model

    return mark


def event_type_of(model: type) -> EventType:
    """Return the wire identity of a class marked by `@event` itself. Raises UnknownType if it is not."""
    found = model.__dict__.get(EVENT_MARK)
    if found is None:
        raise UnknownType(
            f"{model.__module__}.{model.__qualname__} has no wire name; decorate it with @event('your.event.name')"
        )
    return cast(EventType, found)


def encode_payload(payload: object) -> bytes:
    """Return the JSON bytes of a payload, from which its model reads the same payload.

    Raises CodecError naming the field that cannot be sent or would come back as something else: an encoder asks no
    types, so a text where a number belongs would be a dead letter at every reader, and NaN would be null.
    """
    model = type(payload)
    try:
        write, read = _PLAIN if model is dict else model.__dict__.get(_WIRE) or _wire_of(model)
        body = write(payload)
        copy = read(body)
        if copy == payload:
            return body
        fault = lost_in(payload, copy)
    except Exception as error:  # a model's own validator may raise anything
        fault = unsendable(payload) or reason_of(error)
        raise CodecError(_refusal(model, fault)) from error
    if fault is None:
        return body
    raise CodecError(_refusal(model, unsendable(payload) or fault))


def _refusal(model: type, fault: str) -> str:
    return f"a {model.__qualname__} cannot be encoded as JSON and read back: {fault}"


def _wire_of(model: type) -> _Wire:
    if is_mapping(model):
        return _PLAIN
    wire = (_write_pydantic if _is_pydantic(model) else _encode, decoder_for(model))
    setattr(model, _WIRE, wire)
    return wire


def _write_pydantic(payload: Any) -> bytes:
    # what it would warn of is found by reading it back
    return cast(bytes, payload.model_dump_json(warnings=False).encode())


class DecodeFailure(CodecError):
    """An incoming body cannot become a payload; `reason` is the dead letter's."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


class TypeRegistry:
    """The event types one service can decode: `(wire name) → model`, with upcasts from older versions."""

    def __init__(self) -> None:
        self._models: dict[str, tuple[EventType, type]] = {}
        self._decoders: dict[str, Callable[[bytes], object]] = {}
        self._upcasts: dict[tuple[str, int], Upcast] = {}

    def add(self, model: type | str) -> EventType:
        """Register a class marked by @event, or a wire name whose payload is a plain dict; returns its identity.

        Raises RegistrationError when the wire name already belongs to another model, UnknownType without @event.
        """
        identity, model_class = (EventType(model), dict) if isinstance(model, str) else (event_type_of(model), model)
        known = self._models.get(identity.name)
        if known is not None and known[1] is not model_class:
            owner, newcomer = known[1].__qualname__, model_class.__qualname__
            raise RegistrationError(f"wire name {identity.name!r} belongs to {owner}; {newcomer} needs another")
        self._models[identity.name] = (identity, model_class)
        self._decoders[identity.name] = decoder_for(model_class)
        return identity

    def add_upcast(self, name: str, from_version: int, function: Upcast) -> None:
        """Register the step from `from_version` to the next version.

        Raises RegistrationError for a second one, and for what can never be one.
        """
        if not isinstance(name, str):
            raise RegistrationError(f"upcast of {name!r}: give the wire name, as in service.upcast('order.placed', …)")
        if not isinstance(from_version, int) or isinstance(from_version, bool) or from_version < 1:
            raise RegistrationError(f"upcast of {name!r}: from_version={from_version!r} must be a whole number from 1")
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise RegistrationError(f"upcast of {name!r}: {function!r} must be a plain function from dict to dict")
        if (name, from_version) in self._upcasts:
            raise RegistrationError(f"{name!r} already has an upcast from version {from_version}")
        self._upcasts[name, from_version] = function

    def check(self) -> list[str]:
        """Return every gap in the chains of upcasts and every upcast that no message can reach, as sentences."""
        faults = []
        for name, from_version in self._upcasts:
            known = self._models.get(name)
            if known is None or known[1] is dict:
                reason = "a dict is taken as it comes" if known else "no handler takes this type"
                faults.append(f"{name!r}: the upcast from version {from_version} is never used: {reason}")
                continue
            newest = known[0].version
            if from_version >= newest:
                faults.append(f"{name!r}: the upcast from version {from_version} is never used: the newest is {newest}")
            for version in range(from_version, newest):
                if (name, version) not in self._upcasts:
                    faults.append(f"{name!r}: there is an upcast from version {from_version} but none from {version}")
        return faults

    def decode(self, message: Message, type_name: str) -> object:
        """Return the payload of `message` read as `type_name`. Raises DecodeFailure with the dead letter's reason."""
        known = self._models.get(type_name)
        if known is None:
            raise DecodeFailure("unknown_type", f"no model is registered for type {type_name!r}")
        newest = known[0].version
        if message.schemaversion > newest:
            detail = f"{type_name!r} version {message.schemaversion} arrived; this release knows up to {newest}"
            raise DecodeFailure("unknown_version", detail)
        try:
            if message.schemaversion == newest or known[1] is dict:
                return self._decoders[type_name](message.body)
            return self._decode_older(message, known[0], known[1])
        except DecodeFailure:
            raise
        except BaseException as error:  # a model's own validator may raise anything; all of it is the message's fault
            if not is_failure(error):
                raise
            raise DecodeFailure("decode", f"{type_name!r}: {error_line(error)}") from tame(error)

    def _decode_older(self, message: Message, identity: EventType, model: type) -> object:
        document = msgspec.json.decode(message.body, type=dict[str, Any])
        for version in range(message.schemaversion, identity.version):
            upcast = self._upcasts.get((identity.name, version))
            if upcast is None:
                detail = f"{identity.name!r} version {message.schemaversion} arrived and no upcast leads from {version}"
                raise DecodeFailure("unknown_version", detail)
            document = upcast(document)
        if _is_pydantic(model):
            return cast(Any, model).model_validate(document)
        return msgspec.convert(document, model)


def decoder_for(model: type) -> Callable[[bytes], object]:
    """Return what reads a payload of a class, or of `dict`, from its bytes."""
    if _is_pydantic(model):
        return cast(Callable[[bytes], object], cast(Any, model).model_validate_json)
    return msgspec.json.Decoder(dict[str, Any] if model is dict else model).decode


def _is_pydantic(model: type) -> bool:
    # by shape, so that pydantic is never imported for those who do not use it
    return hasattr(model, "model_validate_json") and hasattr(model, "model_dump_json")


def is_model(model: object) -> bool:
    """Tell whether a class may be that of payloads."""
    if not isinstance(model, type):
        return False
    return issubclass(model, msgspec.Struct) or dataclasses.is_dataclass(model) or _is_pydantic(model)


def is_mapping(model: type) -> bool:
    """Tell whether payloads of a class are plain mappings, which need `type=` at publish."""
    return model is dict or (EVENT_MARK not in model.__dict__ and issubclass(model, Mapping))
