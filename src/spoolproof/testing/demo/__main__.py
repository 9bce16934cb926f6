"""Arguments in, exit code out: 0 when nothing was lost, doubled or invented; 1 when something was, or the run is
invalid; 2 for wrong arguments; 3 when something to run with is missing; 130 after Ctrl-C."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import msgspec
from rich.console import Console

from spoolproof.testing.demo.backend import Backend, DatabaseAway, Embedded, Servers
from spoolproof.testing.demo.processes import DidNotFire
from spoolproof.testing.demo.run import Run, RunFailed
from spoolproof.testing.demo.screen import Screen, show
from spoolproof.testing.demo.shop import ShopMissing, check_packages, find_shop
from spoolproof.testing.servers import PostgresServer, RabbitMQServer, ServerFailed

OK, FAILED, MISSING, INTERRUPTED = 0, 1, 3, 130
ORDERS_MIN = 20  #: fewer would leave faults without traffic


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    # with --json the document is alone on standard output
    console = Console(stderr=options.json)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in [name for name in os.environ if name.startswith(("SPOOLPROOF_", "RABBITMQ_"))]:
        del os.environ[name]  # the settings of the caller's own service are not the shop's
    missing = _missing(options.servers)
    if missing is not None:
        console.print(f"the demo cannot run: {missing}", style="red", markup=False, highlight=False, soft_wrap=True)
        return MISSING
    folder = Path(tempfile.mkdtemp(prefix="spoolproof-demo-"))
    code = FAILED
    try:
        code = _run(options, console, folder)
    except KeyboardInterrupt:
        console.print("interrupted; everything the demo started is stopped")
        code = INTERRUPTED
    finally:
        if options.keep or code == FAILED:
            console.print(f"ledger, databases and logs: {folder}", markup=False, highlight=False, soft_wrap=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return code


def _run(options: argparse.Namespace, console: Console, folder: Path) -> int:
    seed = options.seed if options.seed is not None else random.randrange(2**31)
    backend: Backend = Servers(folder) if options.servers else Embedded(folder)
    console.print(
        f"the shop on {backend.name}: {options.orders:,} orders, seed {seed}", highlight=False, soft_wrap=True
    )
    started_at = time.monotonic()
    run: Run | None = None
    faults: list[str] = []
    try:
        backend.start()
        run = Run(folder, backend, orders=options.orders, seed=seed)
        with Screen(console, run.progress) as screen:
            faults = run.go(screen).faults()
    except (RunFailed, DidNotFire, ShopMissing, ServerFailed, DatabaseAway) as error:
        faults = [str(error)]
    finally:
        backend.close()
    seconds = time.monotonic() - started_at
    accounts = run.accounts if run is not None else None
    suffered = run.suffered if run is not None else ()
    absorbed = run.absorbed() if run is not None else 0
    show(console, accounts, suffered, faults, absorbed=absorbed, seconds=seconds, seed=seed)
    if options.json:
        document = {
            "passed": not faults,
            "problems": faults,
            "backend": backend.name,
            "seed": seed,
            "seconds": round(seconds, 1),
            "directory": str(folder) if options.keep or faults else None,
            "absorbed": absorbed,
            "accounts": None if accounts is None else asdict(accounts),
            "faults": suffered,
        }
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
    return FAILED if faults else OK


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="spoolproof demo", description="The example shop under fire, and the accounts."
    )
    parser.add_argument("--servers", action="store_true", help="on private PostgreSQL and RabbitMQ servers")
    parser.add_argument("--orders", type=int, default=600, help=f"how many, at least {ORDERS_MIN} (default 600)")
    parser.add_argument("--seed", type=int, help="repeat the run that printed it")
    parser.add_argument("--json", action="store_true", help="a JSON document on standard output")
    parser.add_argument("--keep", action="store_true", help="keep ledger, databases and logs")
    options = parser.parse_args(arguments)
    if options.orders < ORDERS_MIN:
        parser.error(f"--orders {options.orders}: at least {ORDERS_MIN}, so that every fault meets traffic")
    return options


def _missing(needs_servers: bool) -> str | None:
    if sys.platform != "linux":
        return "it freezes processes and ties their lives together with means that only Linux has"
    try:
        find_shop()
        check_packages()
    except ShopMissing as error:
        return str(error)
    if needs_servers:
        return PostgresServer.missing() or RabbitMQServer.missing()
    return None


if __name__ == "__main__":
    sys.exit(main())
