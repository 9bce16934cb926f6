"""What is told of caches."""

from __future__ import annotations

from spoolproof.telemetry.events import ERROR, WARNING, Event
from spoolproof.telemetry.metrics import counter, gauge

READS = counter("cache_reads_total", "Reads by cache, level and result (hit, miss).", "cache", "level", "result")
RATIO = gauge("cache_hit_ratio", "Hits of all reads of the last five minutes.", "cache", "level")
LOADS = counter("cache_loads_total", "Loads by cache and result (done, failed).", "cache", "result")
STALE = counter("cache_stale_total", "Stale values served.", "cache")
UNSTORED = counter(
    "cache_unstored_total", "Loaded values that were not stored: too large, or not what they say.", "cache"
)
REFUSED = counter("cache_refused_total", "Loaded values that came after an invalidation, and were not stored.", "cache")
ENTRIES = gauge("cache_entries", "Entries in memory.", "cache")
BYTES = gauge("cache_bytes", "Bytes in memory.", "cache")
EVICTED = counter("cache_evicted_total", "Entries that left memory for newer ones.", "cache")
IS_SHARED = gauge("cache_shared", "1 while the shared cache is used, 0 while memory alone serves.")
PENDING = gauge("cache_pending", "Invalidations that wait for the shared cache.")


class CacheLeft(
    Event,
    name="cache.left",
    level=WARNING,
    line="shared={shared} error={error}: memory serves; invalidations are kept in the store until it is back",
    counter="cache_left_total",
    folds=("shared",),
):
    """The shared cache is not used any more."""

    shared: str
    error: str


class CacheReturned(
    Event,
    name="cache.returned",
    level=WARNING,
    line="shared={shared} away={seconds:.1f}s invalidations={invalidations}: it is used again",
    counter="cache_returned_total",
):
    """The shared cache is used again; what had been invalidated meanwhile was done first."""

    shared: str
    seconds: float
    invalidations: int


class CacheFull(
    Event,
    name="cache.full",
    level=WARNING,
    line="shared={shared} error={error}: nothing is stored there for {seconds:g} s; reads go on",
    counter="cache_full_total",
    folds=("shared",),
):
    """The shared cache takes no values."""

    shared: str
    error: str
    seconds: float


class CacheInvalidationsJoined(
    Event,
    name="cache.invalidations_joined",
    level=WARNING,
    line="cache={cache} waiting={waiting}: so many wait for the shared cache that all of it is removed instead",
    counter="cache_invalidations_joined_total",
):
    """Too many invalidations wait; one of the whole cache stands for them."""

    cache: str
    waiting: int


class LoadFailed(
    Event,
    name="cache.load_failed",
    level=WARNING,
    line="cache={cache} served={served} error={error}",
    folds=("cache", "served"),
):
    """A loader raised, or took too long. served: what its readers got instead."""

    cache: str
    served: str
    error: str


class LoaderStuck(
    Event,
    name="cache.loader_stuck",
    level=ERROR,
    line="cache={cache}: a loader goes on although it was cancelled; its key is free again and its result unwanted",
    counter="cache_loaders_stuck_total",
    folds=("cache",),
):
    """A loader ignores that it was cancelled."""

    cache: str
