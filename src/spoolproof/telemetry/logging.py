"""Log lines of a running service: `event key=value …`, one line each, to standard error.

Libraries only log; this is called by `spoolproof run`, which owns the process. Bodies, headers and URLs with passwords
never reach a logger.
"""

from __future__ import annotations

import logging
import sys


def log_to_stderr(level: str = "INFO") -> None:
    """Send Spoolproof's and the user's log lines to standard error. level: a name of the logging module."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
