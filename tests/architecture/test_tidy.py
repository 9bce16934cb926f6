"""What is absent: a ratchet on size, hidden time, stray tasks, unbounded queues and forbidden words.

Every rule reads the syntax trees of `src/spoolproof` and returns one line per violation. What a rule must let pass is
listed in EXEMPT with its reason; an exemption that nothing needs any more fails, so the list can only shrink.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)  # whoever comes first reads all of the source, on a machine that may be busy
ROOT = Path(__file__).resolve().parents[2] / "src" / "spoolproof"
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

#: (rule, file or folder) -> why. Sizes name the length at which the ratchet stands.
EXEMPT: dict[tuple[str, str], str] = {
    ("no_hidden_time", "clock.py"): "the one place that reads clocks",
    ("no_hidden_time", "backoff.py"): "the one place that draws jitter",
    ("no_hidden_time", "testing"): "drives real servers and processes, which know no manual clock",
    ("no_stray_task", "lifecycle"): "the supervisor owns every task",
    (
        "no_stray_task",
        "policies/running/hedge.py",
    ): "its tasks end within the call that made them, cancelled and awaited",
    ("no_stray_task", "testing"): "conformance suites run clients side by side; each test ends what it starts",
    ("no_print", "cli"): "printing is its purpose",
    ("no_print", "testing"): "the drill prints its report",
    ("lines_are_events", "telemetry"): "writes the lines",
    ("lines_are_events", "policies"): "imports nothing of the package that writes lines",
    ("lines_are_events", "testing"): "runs in processes of its own",
    ("queues_are_bounded", "sqlite/threads.py"): "its writer counts and refuses before it queues; put must never block",
}

#: Words of the glossary's "not" column that can mean nothing else, and names that say nothing.
FORBIDDEN_WORDS = {
    "forwarder": "relay",
    "dispatcher": "relay",
    "poison": "dead letter",
    "poisoned": "dead letter",
    "requeue": "replay",
    "resubmit": "replay",
    "reap": "rescue",
    "reaper": "rescue",
    "quiesce": "drain",
    "tripped": "open",
    "msg": "message",
    "cfg": "settings",
    "mgr": "a noun for what it does",
    "utils": "a noun for what it does",
    "helpers": "a noun for what it does",
    "manager": "a noun for what it does",
}

#: A driver and the only places that may import it.
DRIVERS = {
    "pika": ("brokers/rabbitmq", "testing"),
    "aiobotocore": ("brokers/sqs",),
    "botocore": ("brokers/sqs",),
    "aiohttp": ("brokers/sqs", "webhooks/transport.py", "alerts/sinks.py"),
    "apprise": ("alerts/sinks.py",),
    "redis": ("caches/redis.py", "caches/redis_address.py", "testing"),
    "asyncpg": ("stores/postgres", "contrib", "testing"),
    "sqlite3": (
        "sqlite",
        "caches/sqlite.py",
        "stores/sqlite",
        "stores/orm.py",
        "brokers/embedded",
        "contrib",
        "testing",
    ),
    "sqlalchemy": ("contrib", "stores/sqlalchemy_handles.py", "stores/orm.py", "testing"),
    "prometheus_client": ("telemetry",),
    "opentelemetry": ("telemetry",),
    "typer": ("cli", "testing"),
    "rich": ("cli", "testing"),
}
ADAPTERS = ("spoolproof.stores", "spoolproof.brokers", "spoolproof.caches", "spoolproof.sqlite")
MAY_NAME_ADAPTERS = ("wiring.py", "stores", "brokers", "caches", "sqlite", "testing")


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    path: str  #: below src/spoolproof, with slashes
    source: str
    tree: ast.Module

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        return tuple(ast.walk(self.tree))

    @cached_property
    def calls(self) -> tuple[tuple[ast.Call, str], ...]:
        """Every call, and what is called as it is written."""
        return tuple((node, called_name(node)) for node in self.nodes if isinstance(node, ast.Call))

    def is_in(self, places: tuple[str, ...]) -> bool:
        return any(self.path == place or self.path.startswith(f"{place}/") for place in places)


@cache
def modules() -> tuple[Module, ...]:
    files = [file for file in sorted(ROOT.rglob("*.py")) if "_examples" not in file.parts]
    sources = {file: file.read_text() for file in files}
    return tuple(
        Module(path=file.relative_to(ROOT).as_posix(), source=source, tree=ast.parse(source, filename=str(file)))
        for file, source in sources.items()
    )


def imports_of(module: Module) -> Iterator[tuple[int, str, str | None]]:
    """Yield line, module and, for `from … import name`, the name."""
    for node in module.nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            yield from ((node.lineno, node.module, alias.name) for alias in node.names)


def called_name(node: ast.Call) -> str:
    """Return what is called as it is written: `asyncio.Queue` for `asyncio.Queue[int](3)`."""
    called = node.func.value if isinstance(node.func, ast.Subscript) else node.func
    return ast.unparse(called)


def no_hidden_time(module: Module) -> Iterator[str]:
    """Time, randomness and ids are passed in."""
    for line, name, member in imports_of(module):
        if name in {"time", "random"} or (name == "uuid" and member != "UUID"):
            yield f"{line}: imports {name}; ask the clock, ids or backoff that was passed in"
    for node, name in module.calls:
        if re.fullmatch(r"(\w+\.)?(datetime|date)\.(now|utcnow|today)", name):
            yield f"{node.lineno}: {name}(); ask the clock that was passed in"


def no_stray_task(module: Module) -> Iterator[str]:
    """A task nobody owns is a task nobody stops."""
    for node, name in module.calls:
        if name.rpartition(".")[2] in {"create_task", "ensure_future"}:
            yield f"{node.lineno}: {name}(); give the work to the supervisor"


def no_bare_except(module: Module) -> Iterator[str]:
    """A bare except swallows cancellation."""
    for node in module.nodes:
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"{node.lineno}: bare except; name the narrowest error"


def no_print(module: Module) -> Iterator[str]:
    """What a service has to say is an event."""
    for node, name in module.calls:
        if name == "print":
            yield f"{node.lineno}: print(); tell an event"


def lines_are_events(module: Module) -> Iterator[str]:
    """A line outside the catalogue is one that no reference, metric or rule knows."""
    for line, name, _ in imports_of(module):
        if name == "logging":
            yield f"{line}: imports logging; declare an event in the folder's events.py and emit it"


def has_docstring(module: Module) -> Iterator[str]:
    """The module docstring is the design note."""
    if not ast.get_docstring(module.tree):
        yield "1: no module docstring"


def queues_are_bounded(module: Module) -> Iterator[str]:
    """Everything has a limit."""
    for node, name in module.calls:
        kind = name.rpartition(".")[2]
        if kind == "SimpleQueue":
            yield f"{node.lineno}: {name}() has no limit"
        elif kind in {"Queue", "LifoQueue", "PriorityQueue"}:
            sizes = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "maxsize")]
            if not sizes or (isinstance(sizes[0], ast.Constant) and not sizes[0].value):
                yield f"{node.lineno}: {name}() without maxsize"


def files_are_short(module: Module) -> Iterator[str]:
    """One idea per file."""
    lines = module.source.count("\n")
    if lines > FILE_LINES_MAX:
        yield f"1: {lines} lines, at most {FILE_LINES_MAX}"


def functions_are_short(module: Module) -> Iterator[str]:
    """One function, one screen."""
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{node.lineno}: {node.name} has {lines} lines, at most {FUNCTION_LINES_MAX}"


def words_are_ours(module: Module) -> Iterator[str]:
    """One concept, one word: what we define, not what a library calls its arguments."""
    for line, name in [(1, Path(module.path).stem), *_defined_names(module)]:
        for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name):
            if word.lower() in FORBIDDEN_WORDS:
                yield f"{line}: {name}; say {FORBIDDEN_WORDS[word.lower()]!r}"


def drivers_stay_inside(module: Module) -> Iterator[str]:
    """Third-party names stay inside their adapter."""
    for line, name, _ in imports_of(module):
        places = DRIVERS.get(name.partition(".")[0])
        if places is not None and not module.is_in(places):
            yield f"{line}: imports {name}; only {', '.join(places)} may"


def adapters_are_named_by_wiring(module: Module) -> Iterator[str]:
    """Wiring is the only module that names concrete adapters."""
    if module.is_in(MAY_NAME_ADAPTERS):
        return
    for line, name, member in imports_of(module):
        full = name if member is None else f"{name}.{member}"
        if any(full == adapter or full.startswith(f"{adapter}.") for adapter in ADAPTERS):
            yield f"{line}: imports {full}; go through wiring"


def schemes_are_asked_in_wiring(module: Module) -> Iterator[str]:
    """What a URL begins with decides in one table; elsewhere, a new adapter would be forgotten."""
    if module.is_in(MAY_NAME_ADAPTERS):
        return
    for node in module.nodes:
        asked: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and called_name(node).endswith(("startswith", "removeprefix")):
            asked = node.args
        for one in (inner for expression in asked for inner in ast.walk(expression)):
            if isinstance(one, ast.Constant) and re.match(r"(sqlite|postgres|embedded|amqp|memory)", str(one.value)):
                yield f"{node.lineno}: asks for {one.value!r}; give the adapter's row in wiring a word for it"


RULES: tuple[Callable[[Module], Iterator[str]], ...] = (
    no_hidden_time,
    no_stray_task,
    no_bare_except,
    no_print,
    lines_are_events,
    has_docstring,
    queues_are_bounded,
    files_are_short,
    functions_are_short,
    words_are_ours,
    drivers_stay_inside,
    adapters_are_named_by_wiring,
    schemes_are_asked_in_wiring,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_source_keeps(rule: Callable[[Module], Iterator[str]]) -> None:
    """The docstring of the rule says why it matters."""
    places = tuple(place for name, place in EXEMPT if name == rule.__name__)

    violations = [f"{one.path}:{found}" for one in modules() if not one.is_in(places) for found in rule(one)]

    assert violations == [], f"{rule.__doc__}\n" + "\n".join(violations)


@pytest.mark.parametrize(("name", "place"), [key for key in EXEMPT if key[1] != "testing"])
def test_no_exemption_outlives_its_need(name: str, place: str) -> None:
    """The list only shrinks. `testing` and `cli` are exempt by nature, not by need."""
    if place == "cli":
        return
    rule = next(one for one in RULES if one.__name__ == name)

    assert [found for one in modules() if one.is_in((place,)) for found in rule(one)], "remove this exemption"


def test_every_failpoint_is_in_the_catalogue_and_at_one_place() -> None:
    """A point the catalogue does not know is never exercised; one the source does not have proves nothing."""
    from spoolproof.failpoints import FAILPOINTS

    used: Counter[str] = Counter()
    unreadable: list[str] = []
    for module in modules():
        if module.is_in(("failpoints.py", "testing")):
            continue
        for node, name in module.calls:
            if name.rpartition(".")[2] == "failpoint":
                match node.args:
                    case [ast.Constant(value=str(point))]:
                        used[point] += 1
                    case _:
                        unreadable.append(f"{module.path}:{node.lineno}")

    assert unreadable == [], "the name of a failpoint is a literal"
    assert sorted(used.keys() - FAILPOINTS.keys()) == [], "missing in FAILPOINTS"
    assert sorted(FAILPOINTS.keys() - used.keys()) == [], "in FAILPOINTS, but nowhere in the source"
    assert [name for name, count in used.items() if count > 1] == [], "a failpoint names one place"


def test_every_failpoint_is_named_part_and_moment() -> None:
    """`part.after_what` or `part.before_what`: the name alone says where the process dies."""
    from spoolproof.failpoints import FAILPOINTS

    assert [name for name in FAILPOINTS if not re.fullmatch(r"[a-z_]+\.(after|before)_[a-z_]+", name)] == []


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (no_hidden_time, "import time"),
        (no_hidden_time, "from uuid import UUID, uuid4"),
        (no_hidden_time, "import datetime\ndatetime.datetime.now()"),
        (no_stray_task, "async def f(loop):\n    loop.create_task(f(loop))"),
        (no_bare_except, "try:\n    pass\nexcept:\n    pass"),
        (no_print, "print(1)"),
        (lines_are_events, "import logging"),
        (has_docstring, "x = 1"),
        (queues_are_bounded, "q = asyncio.Queue[int]()"),
        (queues_are_bounded, "q = queue.Queue(maxsize=0)"),
        (files_are_short, "x = 1\n" * 501),
        (functions_are_short, "def f():\n" + "    x = 1\n" * 70),
        (words_are_ours, "class PoisonQueue: ..."),
        (words_are_ours, "def send(self, msg): ..."),
        (drivers_stay_inside, "import pika.channel"),
        (adapters_are_named_by_wiring, "from spoolproof import stores"),
        (schemes_are_asked_in_wiring, "url.startswith(('sqlite://', 'x'))"),
        (schemes_are_asked_in_wiring, "if scheme in ('amqp', 'amqps'): pass"),
    ],
)
def test_each_rule_finds_what_it_forbids(rule: Callable[[Module], Iterator[str]], source: str) -> None:
    """A rule that can find nothing passes for ever."""
    assert list(rule(Module(path="some/where.py", source=source, tree=ast.parse(source))))


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (no_hidden_time, "from uuid import UUID\nfrom datetime import datetime\nclock.now()"),
        (queues_are_bounded, "a = asyncio.Queue(maxsize=limit)\nb = queue.Queue(8)\nc = _Queue(name)"),
        (words_are_ours, "channel.basic_nack(tag, requeue=True)\nclass RequestRouter: ..."),
    ],
)
def test_rules_let_pass_what_is_fine(rule: Callable[[Module], Iterator[str]], source: str) -> None:
    assert not list(rule(Module(path="some/where.py", source=source, tree=ast.parse(source))))


def _defined_names(module: Module) -> Iterator[tuple[int, str]]:
    for node in module.nodes:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name):
                yield node.lineno, name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
