"""The ledger is read while it grows."""

from __future__ import annotations

from pathlib import Path

from spoolproof.testing.demo.ledger import Did, Ledger, LedgerReader


def test_a_reader_sees_every_line_once_and_no_half_line(tmp_path: Path) -> None:
    """The orchestrator follows the file while the customers write it."""
    path = tmp_path / "ledger.jsonl"
    reader = LedgerReader(path)
    assert [] == list(reader.read())

    ledger = Ledger(path)
    ledger.write("o-1", Did.SENT)
    ledger.write("o-1", Did.ACCEPTED, "201")
    first = [(line.order_id, line.did, line.detail) for line in reader.read()]
    with path.open("ab") as file:
        file.write(b'{"at": 1.0, "order_id": "o-2", "did"')
    half = list(reader.read())
    with path.open("ab") as file:
        file.write(b': "sent"}\n')
    second = [line.order_id for line in reader.read()]
    ledger.close()

    assert [("o-1", Did.SENT, ""), ("o-1", Did.ACCEPTED, "201")] == first
    assert [] == half
    assert ["o-2"] == second
    assert 3 == len(reader.lines)
