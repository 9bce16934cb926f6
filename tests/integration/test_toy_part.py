"""The toy part of tests/architecture, on a real PostgreSQL server."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..architecture.grown import expected, grow, try_out

pytestmark = pytest.mark.servers


def test_a_part_is_its_own_files_and_two_lines_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    """A table of its own on all three stores: the third needs a server."""
    assert expected(has_command=True) == try_out(grow(tmp_path), postgres_url)
