"""The cursors of a relay, against a model of a database whose transactions overlap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest

from spoolproof import limits
from spoolproof.outbox.progress import Progress
from spoolproof.ports.outbox import Page, RowRef

from ..doses import examples

SHARDS = 2
KEYS = 4  #: key k is in shard k % 2 and goes to destination k // 2
LIMIT = 3
SPAN = 4


@dataclass
class Writer:
    """A transaction: its number, drawn with its first id, its rows and the keys it has locked."""

    number: int | None = None
    rows: list[tuple[int, int]] = field(default_factory=list)
    keys: set[int] = field(default_factory=set)


class Database:
    """Ids and transaction numbers are drawn at once, rows seen at the commit; a key has one writer at a time."""

    def __init__(self) -> None:
        self.drawn = 0
        self.numbers = 0
        self.open: list[Writer] = []
        self.rows: dict[int, int] = {}  #: id → key, committed and not deleted
        self.dead: dict[int, int] = {}  #: deleted, and still in everybody's way
        self.committed: dict[int, int] = {}

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def insert(self, writer: Writer, key: int) -> None:
        if any(key in other.keys for other in self.open if other is not writer):
            return
        writer.keys.add(key)
        writer.number = writer.number or self.number()
        self.drawn += 1
        writer.rows.append((self.drawn, key))

    def end(self, writer: Writer, *, commits: bool) -> None:
        self.open.remove(writer)
        if commits:
            self.rows.update(writer.rows)
            self.committed.update(writer.rows)


class Reader:
    """A relay that sends what it reads at once, or forgets it, or leaves a paused destination out."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.progress = Progress()
        self.mark = self.old_mark = (0, 0)
        self.age_at = 0.0
        self.paused: set[str] = set()
        self.now = 0.0
        self.sent: list[tuple[int, int]] = []
        self.looked_at = 0
        self.progress.hold(dict.fromkeys(range(SHARDS), 1), self.now)

    def read(self, meanwhile: Callable[[], None] = lambda: None, forgets: int | None = None) -> None:
        """Read one page. meanwhile: what happens between its snapshot and its mark. forgets: send so many, no more."""
        database = self.database
        cursors = self.progress.begin(self.paused, self.now)
        is_deep = all(after + SPAN <= self.old_mark[0] for after in cursors.values())
        drawn, writer = self.old_mark if is_deep else self.mark
        running = frozenset(
            number for one in database.open if (number := one.number) is not None and number < self.mark[1]
        )
        found, seen_to = [], {}
        for shard, after in cursors.items():
            near = range(after + 1, after + SPAN + 1)
            self.looked_at += sum(id in near for id, key in database.dead.items() if key % SHARDS == shard)
            ids = [id for id, key in sorted(database.rows.items()) if key % SHARDS == shard and id in near]
            ready = [id for id in ids if f"d{database.rows[id] // 2}" not in self.paused][:LIMIT]
            end = ready[-1] if len(ready) == LIMIT else after + SPAN
            seen_to[shard] = min(end, drawn)
            found += [(id, database.rows[id]) for id in ready]
        meanwhile()
        if self.now >= self.age_at:
            self.old_mark, self.age_at = self.mark, self.now + limits.LATE_WRITER_SECONDS
        self.mark = (database.drawn, database.number())
        if not self.progress.note(
            Page([], seen_to, frozenset(one for one in running if one < writer), running), self.now
        ):
            return
        for index, (id, key) in enumerate(found):
            if forgets is not None and index >= forgets:
                self.progress.go_back(RowRef(key % SHARDS, id))
            else:
                self.sent.append((id, key))
                database.dead[id] = database.rows.pop(id)

    def read_everything(self) -> None:
        self.paused.clear()
        for _ in range(60 + 3 * len(self.database.committed)):
            self.now += limits.LATE_WRITER_SECONDS / 2
            self.read()


VERBS = {
    "begin": 4,
    "insert": 10,
    "commit": 4,
    "roll back": 1,
    "read": 8,
    "between": 3,
    "forget": 2,
    "pause": 1,
    "wait": 3,
}


def test_no_row_is_lost_and_no_key_overtaken_whatever_commits_late() -> None:
    """Whoever is late, forgets, pauses, takes over or reads at whatever moment."""
    for seed in range(examples(1_000)):
        database = Database()
        reader = Reader(database)
        _play(Random(seed), database, reader)
        for writer in list(database.open):
            database.end(writer, commits=True)
        reader.read_everything()

        assert sorted(database.committed.items()) == sorted(reader.sent), f"{seed=}"
        for key in range(KEYS):
            ids = [id for id, of in reader.sent if of == key]
            assert sorted(ids) == ids, f"{seed=}"


def _play(random: Random, database: Database, reader: Reader) -> None:
    for verb in random.choices([*VERBS], [*VERBS.values()], k=random.randint(10, 120)):
        match verb:
            case "read":
                reader.read()
            case "between":
                reader.read(lambda: _write(random, random.choice(["insert", "commit"]), database))
            case "forget":
                reader.read(forgets=random.randrange(3))
            case "pause":
                reader.paused ^= {f"d{random.randrange(KEYS) // 2}"}
            case "wait":
                reader.now += limits.LATE_WRITER_SECONDS * random.choice([0.3, 1.0])
            case _:
                _write(random, verb, database)
    if random.random() < 0.2:
        reader.progress.hold({0: 1, 1: 2}, reader.now)


def _write(random: Random, verb: str, database: Database) -> None:
    if verb == "begin" and len(database.open) < 4:
        database.open.append(Writer())
    elif database.open:
        writer = random.choice(database.open)
        if verb == "insert":
            for _ in range(random.choice([1, 1, 4])):
                database.insert(writer, random.randrange(KEYS))
        elif verb in ("commit", "roll back"):
            database.end(writer, commits=verb == "commit")


def test_a_transaction_somebody_forgot_costs_nothing_while_it_is_open_and_one_look_back_after() -> None:
    """What has gone meanwhile is not looked at with every read, and what it wrote is not lost."""
    database = Database()
    reader = Reader(database)
    forgotten, busy = Writer(), Writer()
    database.open += [forgotten, busy]
    database.insert(forgotten, 0)
    for _ in range(50):
        database.insert(busy, 2)
    database.end(busy, commits=True)
    reader.read_everything()

    while_open = _looked_at(reader, reads=10)
    database.end(forgotten, commits=True)
    after = _looked_at(reader, reads=20)
    later = _looked_at(reader, reads=10)

    assert (0, 0) == (while_open, later)
    assert 50 == after
    assert (1, 0) in reader.sent


def _looked_at(reader: Reader, *, reads: int) -> int:
    before = reader.looked_at
    for _ in range(reads):
        reader.read()
    return reader.looked_at - before


@pytest.mark.parametrize("is_late", [True, False])
def test_the_cursor_waits_for_young_writers_only(is_late: bool) -> None:
    """Most transactions take milliseconds: to wait for them is cheaper than to come back for them."""
    progress = Progress()
    progress.hold({0: 1}, 0.0)
    for now in (0.0, limits.LATE_WRITER_SECONDS if is_late else 0.5):
        progress.begin((), now)
        progress.note(Page([], {0: 10}, frozenset([7]), frozenset([7])), now)

    assert {0: 10 if is_late else 0} == progress.cursors


def test_a_debtor_that_has_no_id_in_a_page_is_not_taken_for_one_that_has_ended() -> None:
    """Else each look back would become one to where the longest transaction began."""
    progress = Progress()
    progress.hold({0: 1}, 0.0)
    debtor = frozenset([7])
    for now in (0.0, limits.LATE_WRITER_SECONDS, limits.LATE_WRITER_SECONDS):
        progress.begin((), now)
        progress.note(Page([], {0: 10}, debtor, debtor), now)
    progress.go_back(RowRef(0, 6))
    progress.begin((), 2.0)

    assert progress.note(Page([], {0: 8}, frozenset(), debtor), 2.0)
    assert {0: 8} == progress.cursors


def test_what_a_pause_left_out_is_read_when_it_ends() -> None:
    """Also when the destination was paused long after other rows of it had gone."""
    progress = Progress()
    progress.hold({0: 1}, 0.0)
    for paused, seen_to in (((), 10), (("queue:full",), 20), (("queue:full", "other"), 30)):
        progress.begin(paused, 0.0)
        progress.note(Page([], {0: seen_to}), 0.0)

    assert {0: 20} == progress.begin(("queue:full",), 0.0)
    assert {0: 10} == progress.begin((), 0.0)


def test_a_store_that_has_gone_back_in_time_is_read_from_the_start() -> None:
    """A promoted replica may not know the last ids, and gives them out again."""
    progress = Progress()
    progress.hold({0: 1}, 0.0)
    progress.begin((), 0.0)
    progress.note(Page([], {0: 50}), 0.0)
    progress.begin((), 0.0)

    assert not progress.note(Page([], {0: 40}), 0.0)
    assert {0: 0} == progress.cursors


def test_a_shard_taken_over_is_read_from_the_start_and_once_more_when_all_deferrals_are_over() -> None:
    """Its former holder may remove, by a late confirm, a row it had deferred; nobody calls those behind it."""
    progress = Progress()
    progress.hold({0: 1}, 0.0)
    progress.begin((), 0.0)
    progress.note(Page([], {0: 50}), 0.0)

    progress.hold({0: 2}, 1.0)
    taken = progress.begin((), 1.0)
    progress.note(Page([], {0: 50}), 1.0)
    soon = progress.begin((), 2.0)
    later = progress.begin((), 10.0 + limits.UNROUTABLE_DELAYS_SECONDS[-1])

    assert [{0: 0}, {0: 50}, {0: 0}] == [taken, soon, later]


def test_a_deferred_row_is_revisited_when_its_time_has_passed() -> None:
    """Should it have gone by other means than its promotion, those behind it are found."""
    progress = Progress()
    progress.hold({0: 1}, 0.0)
    progress.revisit(5.0, RowRef(0, 20))
    progress.begin((), 0.0)
    progress.note(Page([], {0: 50}), 0.0)

    assert {0: 50} == progress.begin((), 5.0)
    assert {0: 19} == progress.begin((), 8.0)
