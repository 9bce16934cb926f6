"""The command `spoolproof`: nouns, then verbs, in the words of the product.

Every command takes `--json`: one document on standard output, also for errors. Text for people goes to standard output,
logs and errors to standard error. Exit codes are in `exits`; nothing else ends the process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    from spoolproof.cli.app import invoke

    sys.exit(invoke(list(sys.argv[1:] if arguments is None else arguments)))
