"""What the run shows: a live picture in a terminal, a line every few seconds elsewhere, and the accounts at the end."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from spoolproof.testing.demo.accounts import Accounts
from spoolproof.testing.demo.faults import Suffered

LINE_SECONDS = 3.0


@dataclass(slots=True)
class Progress:
    """Where the run stands."""

    orders: int
    faults: int
    phase: str = "starting the shop"
    accepted: int = 0
    payments: int = 0
    suffered: list[Suffered] = field(default_factory=list)


class Screen:
    """Shows a Progress until the end of its `with` block."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console = console
        self._progress = progress
        self._live = Live(console=console, get_renderable=self._picture, refresh_per_second=8, transient=True)
        self._line_at = 0.0
        self._line = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def tick(self) -> None:
        """Call often; prints a line now and then where there is no live picture."""
        if self._console.is_terminal or time.monotonic() < self._line_at:
            return
        now = self._progress
        line = f"{now.accepted}/{now.orders} accepted, {now.payments} payments, "
        line += f"{len(now.suffered)}/{now.faults} faults: {now.phase}"
        if line != self._line:
            self._console.print(line, highlight=False, soft_wrap=True)
            self._line = line
        self._line_at = time.monotonic() + LINE_SECONDS

    def _picture(self) -> RenderableType:
        now = self._progress
        bars = Table.grid(padding=(0, 1))
        for name, count, total in (
            ("orders accepted", now.accepted, now.orders),
            ("payments made", now.payments, now.orders),
            ("faults survived", len(now.suffered), now.faults),
        ):
            bars.add_row(name, ProgressBar(total=total, completed=count, width=40), f"{count}/{total}")
        return Group(bars, Text(now.phase, style="bold"))


def show(
    console: Console,
    accounts: Accounts | None,
    suffered: Sequence[Suffered],
    faults: Sequence[str],
    *,
    absorbed: int,
    seconds: float,
    seed: int,
) -> None:
    """Print the end of a run."""
    if suffered:
        console.print(_suffered_table(suffered))
    if accounts is not None:
        console.print(_accounts_table(accounts, absorbed))
    took = f"{seconds:.0f} s, seed {seed}"
    if faults:
        console.print(f"[bold red]failed[/] after {took}")
        for fault in faults:
            console.print(Text(f"  - {fault}"))
    else:
        console.print(f"[bold green]nothing lost, nothing charged twice, nothing half done[/] in {took}")


def _accounts_table(accounts: Accounts, absorbed: int) -> Table:
    table = Table(title="the accounts", title_justify="left")
    table.add_column("")
    table.add_column("orders", justify="right")
    for name, count in (
        ("accepted", accounts.accepted),
        ("declined: nothing left", accounts.declined),
        ("sagas completed: paid, delivered, confirmed", accounts.completed),
        ("sagas compensated: refused or rejected, all undone", accounts.compensated),
        ("sagas in review", accounts.in_review),
        ("questions asked", accounts.reviews_opened),
        ("of these answered by the staff, on the command line", accounts.reviews_by_staff),
        ("of these still open", accounts.reviews_open),
        ("dead-lettered while the printer was broken", accounts.dead_lettered),
        ("replayed once it was repaired", accounts.replayed),
        ("redeliveries absorbed", absorbed),
    ):
        table.add_row(name, f"{count:,}")
    table.add_section()
    for name, found in (
        ("lost", accounts.lost),
        ("charged twice", accounts.charged_twice),
        ("delivered twice", accounts.delivered_twice),
        ("half done", accounts.half_done),
        ("invented", accounts.invented),
    ):
        table.add_row(f"[bold]{name}", f"[bold {'red' if found else 'green'}]{len(found)}")
    return table


def _suffered_table(suffered: Sequence[Suffered]) -> Table:
    table = Table(title="faults (median and worst, seconds)", title_justify="left")
    table.add_column("fault")
    table.add_column("times", justify="right")
    table.add_column("detected after", justify="right")
    table.add_column("recovered after", justify="right")
    for kind in sorted({one.kind for one in suffered}):
        those = [one for one in suffered if one.kind == kind]
        noticed = [one.detected_seconds for one in those if one.detected_seconds is not None]
        recovered = [one.recovered_seconds for one in those]
        table.add_row(kind, str(len(those)), _figures(noticed), _figures(recovered))
    return table


def _figures(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f}  {max(seconds):.2f}" if seconds else "not noticed"
