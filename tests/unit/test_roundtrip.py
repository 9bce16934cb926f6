"""Payloads arrive as they were sent, or are refused at publish with the field that would not."""

from __future__ import annotations

import dataclasses
import math
import warnings
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoolproof.codec import TypeRegistry, encode_payload, event
from spoolproof.errors import CodecError
from spoolproof.message import Message


class Currency(Enum):
    EUR = "EUR"


class StructLine(msgspec.Struct):
    price: Any
    note: str | None = None


@event("struct")
class StructOrder(msgspec.Struct):
    total_cents: int = 0
    celsius: float = 0.0
    maybe: float | None = None
    name: str = ""
    at: datetime | None = None
    day: date | None = None
    waited: timedelta | None = None
    id: UUID | None = None
    amount: Decimal | None = None
    currency: Currency = Currency.EUR
    tags: set[str] = msgspec.field(default_factory=set)
    picture: bytes = b""
    by_number: dict[int, str] = {}
    pair: tuple[int, int] = (0, 0)
    lines: list[StructLine] = []
    anything: Any = None


@dataclasses.dataclass
class DataclassLine:
    price: float
    note: str | None = None


@event("dataclass")
@dataclasses.dataclass
class DataclassOrder:
    total_cents: int = 0
    celsius: float = 0.0
    maybe: float | None = None
    name: str = ""
    at: datetime | None = None
    amount: Decimal | None = None
    tags: set[str] = dataclasses.field(default_factory=set)
    lines: list[DataclassLine] = dataclasses.field(default_factory=list)
    anything: Any = None


class PydanticLine(pydantic.BaseModel):
    price: float
    note: str | None = None


@event("pydantic")
class PydanticOrder(pydantic.BaseModel):
    total_cents: int = 0
    celsius: float = 0.0
    maybe: float | None = None
    name: str = ""
    at: datetime | None = None
    amount: Decimal | None = None
    tags: set[str] = set()
    secret: pydantic.SecretStr | None = None
    lines: list[PydanticLine] = []
    anything: Any = None


MODELS: list[Any] = [StructOrder, DataclassOrder, PydanticOrder]
LINES = {StructOrder: StructLine, DataclassOrder: DataclassLine, PydanticOrder: PydanticLine}


def make(model: Any, **fields: Any) -> Any:
    """Make a payload without asking whether its values fit, as an assignment after its construction would."""
    made = model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in fields.items():
            setattr(made, name, value)
    return made


def read(model: Any, body: bytes) -> object:
    registry = TypeRegistry()
    name = "plain" if model is dict else registry.add(model).name
    if model is dict:
        registry.add(name)
    message = Message(id="1", type=name, source="s", time=datetime(2026, 1, 1, tzinfo=UTC), body=body)
    return registry.decode(message, name)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def endless() -> Any:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


REFUSED_FIELDS: list[tuple[str, Any, str]] = [
    ("total_cents", "7", "total_cents: "),
    ("total_cents", 1.5, "total_cents: "),
    ("total_cents", None, "total_cents: "),
    ("celsius", math.nan, "celsius: nan is no number JSON can hold"),
    ("celsius", math.inf, "celsius: inf is no number JSON can hold"),
    ("maybe", math.nan, "maybe: nan is no number"),
    ("maybe", -math.inf, "maybe: -inf is no number"),
    ("name", 7, "name: "),
    ("name", "a\ud800", "name: 'a\\ud800' is not valid Unicode"),
    ("at", "2026-01-01T00:00:00Z", "at: "),
    ("amount", 1.1, "amount: "),
    ("amount", Decimal("NaN"), "amount: "),
    ("tags", "abc", "tags"),
    ("anything", math.nan, "anything: nan is no number"),
    ("anything", {"a": [1, math.nan]}, "anything.a[1]: nan is no number"),
    ("anything", {"a": {"b c": math.inf}}, "anything.a['b c']: inf is no number"),
    ("anything", {"a": "\udfff"}, "anything.a: "),
    ("anything", {"\udfff": 1}, "anything: the key"),
    ("anything", {"a": {1}}, "anything.a: {1} is read back as [1]"),
    ("anything", {"a": b"x"}, "anything.a: b'x' is read back as "),
    ("anything", {"a": Decimal("1.10")}, "anything.a: Decimal('1.10') is read back as '1.10'"),
    ("anything", {"a": UUID(int=1)}, "anything.a: UUID("),
    ("anything", {"a": datetime(2026, 1, 1)}, "anything.a: datetime"),
    ("anything", {"a": datetime(2026, 1, 1, tzinfo=UTC)}, "anything.a: datetime"),
    ("anything", {"a": Currency.EUR}, "anything.a: <Currency.EUR: 'EUR'> is read back as 'EUR'"),
    ("anything", {1: 2}, "anything: the key 1 is read back as text; make it text"),
    ("anything", {"a": object()}, "anything.a: "),
    ("anything", deep(2000), "is nested more than 200 deep"),
    ("anything", endless(), "anything.self"),
]


@pytest.mark.parametrize(("field", "value", "needle"), REFUSED_FIELDS)
@pytest.mark.parametrize("model", MODELS)
def test_a_value_its_reader_would_not_find_is_refused_with_its_field(
    model: Any, field: str, value: Any, needle: str
) -> None:
    """Sent as it is, it is a dead letter at every reader, or another value."""
    with pytest.raises(CodecError) as caught:
        encode_payload(make(model, **{field: value}))

    assert f"a {model.__qualname__} cannot be encoded as JSON and read back: " in str(caught.value)
    assert needle in str(caught.value)


@pytest.mark.parametrize(("field", "value", "needle"), [one for one in REFUSED_FIELDS if "anything" == one[0]])
def test_a_dict_is_judged_like_a_field_that_may_be_anything(field: str, value: Any, needle: str) -> None:
    """A dict has no types to go by: what comes back must be what JSON can say."""
    with pytest.raises(CodecError) as caught:
        encode_payload({field: value})

    assert needle in str(caught.value)


@pytest.mark.parametrize("model", MODELS)
def test_a_field_deep_inside_is_named(model: Any) -> None:
    """`lines[1].price` is found in a second; "the payload" in an hour."""
    lines = [make_line(LINES[model], 1.5), make_line(LINES[model], math.nan)]

    with pytest.raises(CodecError, match=r"lines\[1\]\.price: nan is no number"):
        encode_payload(make(model, lines=lines))


def make_line(model: Any, price: Any) -> Any:
    return model(price=price)


@pytest.mark.parametrize(
    "fields",
    [
        {"at": datetime(2026, 1, 1, 12, 30, 0, 123456)},
        {"at": datetime(2026, 1, 1, 12, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))},
        {"day": date(2026, 1, 1), "waited": timedelta(days=3, microseconds=1)},
        {"id": UUID(int=7), "amount": Decimal("1.10")},
        {"tags": {"a", "b"}, "picture": b"\0\xff"},
        {"by_number": {1: "a"}, "pair": (1, 2)},
        {"total_cents": 2**63 - 1, "celsius": 5e-324, "maybe": 7},
        {"name": "\0 é 𝄞 \u2028"},
        {"anything": {"a": [1, None, True, "x", 1.5, {"b": []}]}},
    ],
)
def test_values_of_the_right_type_arrive_as_they_are(fields: dict[str, Any]) -> None:
    """Each in its field: nothing that JSON cannot say by itself is lost where the model says what it is."""
    order = StructOrder(**fields)

    assert order == read(StructOrder, encode_payload(order))


@pytest.mark.parametrize("model", [DataclassOrder, PydanticOrder])
def test_dataclasses_and_pydantic_models_arrive_as_they_are(model: Any) -> None:
    """The three kinds are interchangeable."""
    order = model(
        total_cents=7,
        maybe=1.5,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        amount=Decimal("1.10"),
        tags={"a"},
        lines=[make_line(LINES[model], 2.5)],
        anything={"a": 1},
    )

    assert order == read(model, encode_payload(order))


def test_a_tuple_may_arrive_as_a_list() -> None:
    """Python tells them apart, JSON and most readers do not."""
    assert b'{"a":[1,[2]]}' == encode_payload({"a": (1, (2,))})
    assert b'{"price":[1],"note":null}' in encode_payload(StructOrder(lines=(StructLine((1,)),)))  # type: ignore[arg-type]


def test_a_secret_of_pydantic_is_refused_instead_of_its_stars() -> None:
    """`**********` arrived, and no error told."""
    with pytest.raises(CodecError, match="secret: "):
        encode_payload(PydanticOrder(secret=pydantic.SecretStr("x")))


@event("without.equality")
class WithoutEquality(msgspec.Struct, eq=False):
    value: Any


@event("counting")
class Counting(msgspec.Struct):
    value: int

    def __post_init__(self) -> None:
        self.value += 1


@event("strict")
@dataclasses.dataclass
class Strict:
    value: int

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("planted")


@event("unreadable")
class Unreadable(msgspec.Struct):
    value: NoSuchName  # type: ignore[name-defined]  # noqa: F821


def test_a_class_without_equality_is_compared_by_its_fields() -> None:
    """Two instances of it are never equal; that is no fault of the payload."""
    assert b'{"value":1}' == encode_payload(WithoutEquality(1))
    with pytest.raises(CodecError, match="value: nan"):
        encode_payload(WithoutEquality(math.nan))


def test_a_class_whose_equality_raises_is_refused_with_the_reason() -> None:
    """Whatever a class of the user's does, a publish is taken or refused with an error of ours."""
    with pytest.raises(CodecError, match="planted"):
        encode_payload(Strict(1))


def test_a_class_that_changes_what_it_reads_is_refused() -> None:
    """Its receiver would handle another event."""
    with pytest.raises(CodecError, match="value: 2 is read back as 3"):
        encode_payload(Counting(1))


def test_a_class_no_reader_can_be_made_of_is_refused_with_the_reason() -> None:
    """A type that is imported for the type checker alone."""
    with pytest.raises(CodecError, match="NoSuchName"):
        encode_payload(Unreadable(1))


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3)
    | st.decimals()
    | st.datetimes()
    | st.datetimes(timezones=st.timezones())
    | st.timedeltas()
    | st.uuids()
    | st.sampled_from(Currency)
    | st.frozensets(st.integers(), max_size=2)
)
documents = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.none(), inner, max_size=3)
        | st.lists(inner, max_size=2).map(tuple)
    ),
    max_leaves=6,
)


def lists_for_tuples(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [lists_for_tuples(one) for one in value]
    if isinstance(value, dict):
        return {key: lists_for_tuples(one) for key, one in value.items()}
    return value


@given(st.sampled_from([*MODELS, dict]), documents)
def test_any_value_arrives_as_it_was_or_is_refused(model: Any, value: Any) -> None:
    """No third thing: changed on the way, or another exception."""
    payload = {"anything": value} if model is dict else make(model, anything=value)
    try:
        body = encode_payload(payload)
    except CodecError:
        return

    arrived = read(model, body)
    found = arrived["anything"] if model is dict else arrived.anything  # type: ignore[index, attr-defined]
    assert lists_for_tuples(value) == lists_for_tuples(found)


@given(st.sampled_from(MODELS), st.data())
def test_any_value_in_any_field_arrives_as_it_was_or_is_refused(model: Any, data: st.DataObject) -> None:
    """A model's types are a promise to its reader, and nobody checks them on the way in."""
    fields = [name for name in model.__annotations__]
    field, value = data.draw(st.sampled_from(fields)), data.draw(leaves)
    try:
        body = encode_payload(make(model, **{field: value}))
    except CodecError:
        return

    assert value == getattr(read(model, body), field)


@given(
    st.builds(
        StructOrder,
        total_cents=st.integers(-(2**63), 2**63 - 1),
        celsius=st.floats(allow_nan=False, allow_infinity=False),
        name=st.text(st.characters(exclude_categories=["Cs"])),
        at=st.datetimes(timezones=st.just(UTC)),
        day=st.dates(),
        waited=st.timedeltas(),
        id=st.uuids(),
        amount=st.decimals(allow_nan=False),
        tags=st.sets(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=3),
        picture=st.binary(max_size=20),
        by_number=st.dictionaries(st.integers(-(2**63), 2**63 - 1), st.just("x"), max_size=3),
        pair=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    )
)
def test_a_payload_that_keeps_its_types_is_never_refused(order: StructOrder) -> None:
    """A check that refuses what is right would be worse than none."""
    assert order == read(StructOrder, encode_payload(order))
