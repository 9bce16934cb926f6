"""What a forked child lets go of before it runs anything else.

A child has every open file of its parent, and close-on-exec says nothing about a fork. A pool worker that outlives its
killed parent would keep the parent's locks, its port and its sessions, and whoever comes after the parent would find
them taken. So what must end with this process registers here.

`guard` is held across a fork. Whoever opens or closes what is registered does so under it: then no child has a
descriptor that nobody names, and none closes a number that is somebody else's by now.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Protocol
from weakref import WeakSet


class Inherited(Protocol):
    """Something of this process that a child must not keep."""

    def let_go(self) -> None:
        """Called in a child, right after the fork. Must not wait and must not raise."""


guard = threading.RLock()
_registered: WeakSet[Inherited] = WeakSet()


def let_go_in_child(thing: Inherited) -> None:
    """Call `thing.let_go` in every child that is forked while the thing lives."""
    with guard:
        _registered.add(thing)


def cut(descriptor: int) -> None:
    """Let go of a file that some object names and will close: the number stays taken, and stands for nothing."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, descriptor, inheritable=False)
    os.close(null)


def _after_in_child() -> None:
    for thing in list(_registered):
        with contextlib.suppress(Exception):  # nobody is there to be told, and the others must go, too
            thing.let_go()
    _registered.clear()
    guard.release()


if hasattr(os, "register_at_fork"):  # else there are no forks
    os.register_at_fork(before=guard.acquire, after_in_parent=guard.release, after_in_child=_after_in_child)
