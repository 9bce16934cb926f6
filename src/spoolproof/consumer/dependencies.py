"""What handlers are given beside the event: made by functions of the application, for one attempt, and closed after it.

A provider is known by the type in its return annotation. It may itself ask for a Delivery, a Transaction, or what
others provide. Within one attempt each is made once.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from spoolproof.caught import error_line
from spoolproof.consumer.delivery import Delivery
from spoolproof.consumer.handler import Handler, is_session
from spoolproof.errors import RegistrationError
from spoolproof.outbox.transaction import Transaction

_YIELDED = (AsyncIterator, AsyncGenerator, Iterator, Generator)


@dataclass(frozen=True, slots=True)
class Provider:
    """function: gives the value, an awaitable of it, or a context manager around it. wants: parameter → type."""

    function: Callable[..., Any]
    gives: Any
    wants: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As people look for it."""
        return str(getattr(self.function, "__qualname__", repr(self.function)))


class Dependencies:
    """The providers of one service."""

    def __init__(self) -> None:
        self._providers: dict[Any, Provider] = {}

    def add(self, function: Callable[..., Any]) -> None:
        """Register a provider. Raises RegistrationError with the reason."""
        provider = _provider(function)
        known = self._providers.get(provider.gives)
        if known is not None:
            raise RegistrationError(f"@service.provides: {known.name} and {provider.name} both give {provider.gives}")
        self._providers[provider.gives] = provider

    def faults(self, handler: Handler) -> list[str]:
        """Return what this handler asks for that cannot be given, as sentences."""
        faults: list[str] = []
        for name, kind in handler.dependencies.items():
            self._find(kind, f"handler {handler.name}, parameter {name!r}", handler, (), faults)
        return faults

    def _find(self, kind: Any, who: str, handler: Handler, path: tuple[Any, ...], faults: list[str]) -> None:
        shown = getattr(kind, "__qualname__", str(kind))
        if kind is Delivery:
            return
        if is_session(kind):
            if handler.is_sync:
                faults.append(f"{who}: an AsyncSession cannot be used by a plain function; make it `async def`")
            elif not handler.wants_transaction:
                faults.append(f"{who} asks for the session of a transaction, and the handler takes none")
            return
        if kind is Transaction:
            if not handler.wants_transaction:
                faults.append(f"{who} asks for a Transaction, and the handler takes none")
        elif kind in path:
            faults.append(f"{who}: {shown} needs itself")
        elif kind not in self._providers:
            faults.append(f"{who}: nothing gives {shown}; write @service.provides above a function that returns it")
        else:
            provider = self._providers[kind]
            for name, wanted in provider.wants.items():
                self._find(wanted, f"provider {provider.name}, parameter {name!r}", handler, (*path, kind), faults)

    async def made_for(
        self, handler: Handler, delivery: Delivery, tx: Transaction | None, closing: AsyncExitStack
    ) -> dict[str, object]:
        """Return what a handler's parameters are given; `closing` ends it."""
        made: dict[Any, object] = {Delivery: delivery, Transaction: tx}
        return {name: await self._make(kind, made, closing) for name, kind in handler.dependencies.items()}

    async def _make(self, kind: Any, made: dict[Any, object], closing: AsyncExitStack) -> object:
        if kind not in made and is_session(kind):
            transaction: Any = made[Transaction]
            made[kind] = await closing.enter_async_context(transaction.inner.session(kind))
        elif kind not in made:
            provider = self._providers[kind]
            wanted = {name: await self._make(kind, made, closing) for name, kind in provider.wants.items()}
            value = provider.function(**wanted)
            if hasattr(value, "__aenter__") and _is_block(provider):
                value = await closing.enter_async_context(value)
            elif hasattr(value, "__enter__") and _is_block(provider):
                value = closing.enter_context(value)
            elif inspect.isawaitable(value):
                value = await value
            made[kind] = value
        return made[kind]


def _is_block(provider: Provider) -> bool:
    return hasattr(provider.function, "__wrapped__") and not inspect.iscoroutinefunction(provider.function)


def _provider(function: Any) -> Provider:
    name = getattr(function, "__qualname__", repr(function))
    if not callable(function):
        raise RegistrationError(f"@service.provides on {name}: it is not a function")
    try:
        hints = typing.get_type_hints(function)
    except Exception as error:  # an annotation may name anything
        raise RegistrationError(f"@service.provides on {name}: {error_line(error)}") from error
    gives = hints.get("return")
    if typing.get_origin(gives) in _YIELDED:
        gives = typing.get_args(gives)[0]
    if gives is None or gives is type(None):
        raise RegistrationError(f"@service.provides on {name}: annotate what it returns; handlers ask for that type")
    wants: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in hints:
            wants[parameter.name] = hints[parameter.name]
        elif parameter.default is parameter.empty:
            raise RegistrationError(f"@service.provides on {name}: parameter {parameter.name!r} has no annotation")
    if inspect.isasyncgenfunction(function):
        function = asynccontextmanager(function)
    elif inspect.isgeneratorfunction(function):
        function = contextmanager(function)
    return Provider(function, gives, wants)
