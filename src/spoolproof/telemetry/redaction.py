"""What is shown to people never shows what must stay secret: the one function for logs, health, lists and reports.

Secret is the value of a key whose words say so, at any depth (`api_key`, `X-Auth-Token`; `shipping` is not `pin`), and
wherever it stands: a JWT, a PEM block, the number of a payment card, the password in a URL. What is masked stays masked
when it is masked again. Nothing here raises: what cannot be looked at is `***`.

Must never be here: a rule that lets something through because of where it is shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence, Set
from functools import lru_cache
from itertools import pairwise

from spoolproof.urls import MASK, without_passwords

_WORDS = frozenset(
    (
        *("password", "passwords", "passwd", "passphrase", "secret", "secrets", "token", "tokens", "authorization"),
        *("cookie", "cookies", "session", "sessionid", "credential", "credentials", "signature", "apikey"),
        *("privatekey", "pin", "cvv", "cvc", "pan", "iban", "ssn"),
    )
)
_PAIRS = (("api", "key"), ("private", "key"), ("access", "key"))
_SPLIT = re.compile(r"[^0-9A-Za-z]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_JWT = re.compile(r"\beyJ[\w-]{4,}\.[\w-]+\.[\w-]*")
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL)
_CARD = re.compile(r"(?<![\w.-])[2-6](?:[ -]?\d){12,18}(?![\w-]|\.\d)")
_HEADER = re.compile(r"\b((?:set-)?cookie2?|(?:proxy-)?authorization)(\s*[:=]\s*)['\"]?[^\r\n\"']+", re.IGNORECASE)
_SCHEME = re.compile(r"\b(Bearer|Basic)(\s+)[\w.~+/=-]{6,}")
# name=value, "name": value and Name: value; a value is quoted, or ends at white space
_NAMED = re.compile(
    r"""(?<![\w.-])(?P<name>[\w.-]{2,80})(?P<quote>['"]?)(?P<is>\s*[=:]\s*)"""
    r"""(?P<value>b?"(?:[^"\\]|\\.)*"|b?'(?:[^'\\]|\\.)*'|[^\s&]+)"""
)
_CERTAIN = frozenset(("password", "passwd", "secret", "authorization", "cookie", "token", "signature"))
_DEPTH_MAX = 40
_ROUNDS_MAX = 8


@lru_cache(4096)
def is_secret(name: str) -> bool:
    """Whether the words of a key's name say that its value is secret."""
    return bool(_secret_words(name))


def masked(value: object, reveal: Set[str] = frozenset(), _depth: int = 0) -> object:
    """Return a value of any depth, JSON-ready if it was, with `***` for what is secret. Never raises.

    Texts are masked as by `masked_text`. reveal: keys whose values are shown whatever they are called.
    """
    try:
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, str):
            return masked_body(value) if value[:1] in ("{", "[") else masked_text(value)
        if isinstance(value, int):
            return MASK if _is_card(str(value)) else value
        if _depth > _DEPTH_MAX:
            return MASK
        if isinstance(value, Mapping):
            return {
                key: one
                if key in reveal
                else (
                    MASK if isinstance(key, str) and is_secret(key) and _says(one) else masked(one, reveal, _depth + 1)
                )
                for key, one in value.items()
            }
        if isinstance(value, Sequence | Set) and not isinstance(value, bytes | bytearray | memoryview):
            return [masked(one, reveal, _depth + 1) for one in value]
        if isinstance(value, bytes | bytearray | memoryview):
            return masked_body(bytes(value).decode("utf-8"))
        return value
    except Exception:  # what cannot be looked at is not shown
        return MASK


def masked_text(text: str) -> str:
    """Return a text with `***` for the secrets in it. Never raises."""
    try:
        for _ in range(_ROUNDS_MAX):  # what one mask uncovers is masked, too: a second look shows what the first did
            before, text = text, _masked_once(text)
            if text == before:
                return text
    except Exception:  # an object that only looks like a text
        pass
    return MASK


def _masked_once(text: str) -> str:
    if "://" in text:
        text = without_passwords(text)
    if "-----BEGIN" in text:
        text = _PEM.sub(MASK, text)
    text = _JWT.sub(MASK, text)
    text = _HEADER.sub(rf"\1\2{MASK}", text)
    text = _SCHEME.sub(rf"\1\2{MASK}", text)
    text = _NAMED.sub(_without_value, text)
    return _CARD.sub(lambda found: MASK if _is_card(found[0]) else found[0], text)


def masked_body(text: str) -> str:
    """Return a text that may be JSON, masked by its keys if it is. Never raises."""
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return masked_text(text)
    try:
        shown = masked(found)
        return text if shown == found else json.dumps(shown, ensure_ascii=False)
    except Exception:  # deeper than can be written
        return MASK


def _says(value: object) -> bool:
    """Whether a value can be a secret: nothing, and a yes or no, is none."""
    return value is not None and not isinstance(value, bool) and value != ""


def _secret_words(name: str) -> set[str]:
    words = [word.lower() for word in _SPLIT.split(name) if word]
    pairs = {"".join(pair) for pair in pairwise(words) if pair in _PAIRS}
    return pairs | _WORDS.intersection(words)


def _without_value(found: re.Match[str]) -> str:
    words = _secret_words(found["name"])
    is_pair = "=" in found["is"] or bool(found["quote"])
    value = found["value"]
    if not (words if is_pair else words & _CERTAIN):  # `session: closed` is prose; what it holds may name more
        return found[0].removesuffix(value) + _NAMED.sub(_without_value, value)
    end = value[-1] if value[-1] in "'\"" and len(value) > 1 else ""
    start = end if value.startswith((end, f"b{end}")) else ""
    return f"{found['name']}{found['quote']}{found['is']}{start}{MASK}{end}"


def _is_card(text: str) -> bool:
    digits = [int(one) for one in text if one.isdigit()]
    if not 13 <= len(digits) <= 19 or not 2 <= digits[0] <= 6:
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
