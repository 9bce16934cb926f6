"""The process of one turn: `python -m benchmarks.turn MODULE CONTENDER ARGUMENTS`; prints its figures as JSON.

Every contender runs on uvloop, which `spoolproof run` and `faststream run` both use when it is installed, with the
garbage collector as Python sets it and logging off.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import logging
import sys

import uvloop


def main() -> None:
    """Run the turn named by the command line."""
    module, contender, arguments = sys.argv[1:]
    logging.disable(logging.INFO)
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    run = getattr(importlib.import_module(f"benchmarks.{module}"), f"turn_{contender.replace('-', '_')}")
    figures = run(**json.loads(arguments))
    if inspect.iscoroutine(figures):
        figures = asyncio.run(figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
