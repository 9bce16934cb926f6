"""P5: the relay's rate with 5,000,000 rows waiting over its rate with 100,000, and its memory in both."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.contest import Benchmark, Comparison, Sample, Target
from benchmarks.p4_relay import QUEUE, watch
from benchmarks.stage import Stage

ROWS = {"small": 100_000, "large": 5_000_000}
OBSERVED_SECONDS = 10


def measure(stage: Stage, contender: str) -> Sample:
    """Start the relay on a copy of the filled database, and watch the queue and the process."""
    rows = stage.scale(ROWS[contender], ROWS[contender] // 10)
    template = f"p5_{rows}"
    if stage.postgres.psql(f"select 1 from pg_database where datname = '{template}'").strip() != "1":
        stage.turn("p4_relay", "fill_spoolproof", url=stage.postgres.create_database(template), rows=rows)
    database = f"p5_{stage.serial()}"
    url = stage.postgres.create_database(database, template)
    stage.postgres.psql("checkpoint")
    try:
        with (
            stage.queue("bench", QUEUE) as queue,
            stage.begin("p4_relay", "spoolproof", postgres=url, amqp=stage.rabbitmq.url) as process,
        ):
            _, shipped, seconds = watch(queue, process, rows, OBSERVED_SECONDS)
            status = Path(f"/proc/{process.pid}/status").read_text()
    finally:
        stage.postgres.drop_database(database)
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    return {"rate": shipped / seconds, "peak": int(peak[1]) / 1024 if peak else 0.0}


BENCHMARK = Benchmark(
    id="P5",
    title="Relay with 5,000,000 rows waiting, over 100,000",
    contenders={"large": "5,000,000 rows waiting", "small": "100,000 rows waiting"},
    measure=measure,
    comparisons=(
        Comparison(
            ours="large", peer="small", label="the same relay", metric="rate", unit="rows/s", target=Target(0.8)
        ),
        Comparison(
            ours="large",
            peer="small",
            label="its peak memory",
            metric="peak",
            unit="MiB",
            target=Target(1.1, is_least=False),
        ),
    ),
    switches={"PostgreSQL": "fsync=on, synchronous_commit=on; a fresh copy per turn", "queue": "quorum, one node"},
    rounds_max=2,
)
