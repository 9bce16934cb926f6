"""What is told of caches' files."""

from __future__ import annotations

from spoolproof.telemetry.events import ERROR, Event


class CacheFileReplaced(
    Event,
    name="cache.file_replaced",
    level=ERROR,
    line="path={path} aside={aside} error={error}: a new file is used; delete the old one when you have looked at it",
    counter="cache_files_replaced_total",
):
    """The cache's file was damaged."""

    path: str
    aside: str
    error: str
