"""The first level keeps its bounds and forgets what was not used longest, whatever is done to it."""

from __future__ import annotations

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from spoolproof.cache.coder import Coder
from spoolproof.cache.memory import ENTRY_BYTES, Kept, Memory

KEYS = st.sampled_from("abcdefgh")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(0, 300)),
        st.tuples(st.just("use"), KEYS, st.just(0)),
        st.tuples(st.just("drop"), KEYS, st.just(0)),
        st.tuples(st.just("clear"), st.just("a"), st.just(0)),
    ),
    max_size=60,
)
CODER = Coder("x")


def kept(size: int) -> Kept:
    return Kept(
        coder=CODER,
        value=None,
        body=b"x" * size,
        is_shareable=False,
        version=b"",
        loaded_at=0,
        loaded_ms=0,
        refresh_at=0,
        fresh_until=0,
        dead_at=0,
        sequence=0,
        tags=(),
        generation=0,
    )


@given(STEPS, st.integers(1, 6), st.integers(ENTRY_BYTES, 3 * ENTRY_BYTES))
def test_memory_is_a_bounded_queue_by_last_use(
    steps: list[tuple[str, str, int]], entries_max: int, bytes_max: int
) -> None:
    """Against the obvious model: an ordered dict of sizes, trimmed from the front after each put."""
    memory, model = Memory(entries_max, bytes_max), OrderedDict[str, int]()
    for verb, key, size in steps:
        if verb == "put":
            memory.put(key, kept(size))
            model.pop(key, None)
            if (whole := size + len(key) + ENTRY_BYTES) <= bytes_max:
                model[key] = whole
            while len(model) > entries_max or sum(model.values()) > bytes_max:
                model.popitem(last=False)
        elif verb == "use" and memory.find(key) is not None:
            memory.touch(key)
            model.move_to_end(key)
        elif verb == "drop":
            memory.drop(key)
            model.pop(key, None)
        elif verb == "clear":
            memory.clear()
            model.clear()

        assert list(model) == [name for name, _ in memory]
        assert sum(model.values()) == memory.bytes
        assert len(memory) <= entries_max
        assert memory.bytes <= bytes_max
