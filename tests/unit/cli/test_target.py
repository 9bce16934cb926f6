"""Finding `MODULE:SERVICE` in a directory of the user's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoolproof.cli.exits import Usage
from spoolproof.cli.target import load_service

FILES = {
    "goods.py": "from spoolproof import Service\n\nservice = Service('goods')\nclass Box: inner = Service('inner')\n",
    "empty_shop.py": "x = 1\n",
    "broken_shop.py": "import json\n\nraise RuntimeError('no bank')\n",
    "typo_shop.py": "def broken(:\n",
    "needy_shop.py": "import a_package_nobody_has\n",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


@pytest.mark.parametrize(("target", "name"), [("goods:service", "goods"), ("goods:Box.inner", "inner")])
def test_a_service_is_found_in_the_current_directory(target: str, name: str) -> None:
    """`spoolproof run shop:service` beside shop.py, as in the README."""
    assert name == load_service(target).name


@pytest.mark.parametrize(
    ("target", "message", "hint"),
    [
        ("goods", "'goods' does not name a service", "MODULE:SERVICE"),
        (":service", "does not name a service", "MODULE:SERVICE"),
        ("goods:", "does not name a service", "MODULE:SERVICE"),
        ("absent:service", "there is no module 'absent'", "PYTHONPATH"),
        ("goods.deeper:service", "there is no module 'goods.deeper'", "PYTHONPATH"),
        ("goods:servce", "module 'goods' has no 'servce'", "it holds: goods:service"),
        ("goods:Box", "'goods:Box' is of type type, not a Service", "it holds: goods:service"),
        ("empty_shop:service", "has no 'service'", "holds no Service"),
        ("broken_shop:service", "broken_shop.py:3: RuntimeError: no bank", "python -c 'import broken_shop'"),
        ("typo_shop:service", "typo_shop.py:1: SyntaxError", "python -c"),
        ("needy_shop:service", "needy_shop.py:1: ModuleNotFoundError: No module named 'a_package_nobody_has'", ""),
    ],
)
def test_what_is_missing_is_named_with_what_is_there(target: str, message: str, hint: str) -> None:
    """The first command of every user; a traceback here is where they stop."""
    with pytest.raises(Usage) as refused:
        load_service(target)

    assert message in str(refused.value)
    assert hint in refused.value.hint
