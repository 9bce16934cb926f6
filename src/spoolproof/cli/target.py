"""Finding the service a command names: `MODULE:SERVICE`, from the current directory."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from types import ModuleType
from typing import TYPE_CHECKING

from spoolproof.caught import error_line
from spoolproof.cli.exits import Usage

if TYPE_CHECKING:
    from spoolproof.service import Service


def load_service(target: str) -> Service:
    """Import a module and return the service it holds. Raises Usage saying what is missing and what is there."""
    from spoolproof.service import Service

    module_name, _, path = target.partition(":")
    if not module_name or not path:
        raise Usage(f"{target!r} does not name a service", "write MODULE:SERVICE, as in `spoolproof run shop:service`")
    module = _import(module_name)
    found: object = module
    for name in path.split("."):
        if not hasattr(found, name):
            raise Usage(f"module {module_name!r} has no {path!r}", _services_of(module, module_name))
        found = getattr(found, name)
    if not isinstance(found, Service):
        kind = type(found).__name__
        raise Usage(f"{target!r} is of type {kind}, not a Service", _services_of(module, module_name))
    return found


def _import(name: str) -> ModuleType:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise Usage(
                f"there is no module {name!r} in {folder} or on the path",
                "start the command in the directory that holds it, or set PYTHONPATH",
            ) from error
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> Usage:
    """Return the refusal for a module that raised while it was imported, with the line of the user's that did."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    if isinstance(error, SyntaxError):
        place = f" at {error.filename}:{error.lineno}"
    return Usage(
        f"importing {name!r} failed{place}: {error_line(error)}",
        f"python -c 'import {name}' shows the whole traceback",
    )


def _services_of(module: ModuleType, name: str) -> str:
    from spoolproof.service import Service

    names = sorted(key for key, value in vars(module).items() if isinstance(value, Service))
    if not names:
        return f"module {name!r} holds no Service; make one: service = Service({name.rpartition('.')[2]!r})"
    return "it holds: " + ", ".join(f"{name}:{one}" for one in names)
