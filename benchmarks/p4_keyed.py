"""P4 with ordering keys: the rate of the relay when 100,000 waiting rows have few keys, many, or none.

At most one row of a key is unconfirmed at a time: a nack or a return of the first must not leave the second ahead of
it. So the rate is bounded by keys ÷ the time of one confirm, which grows with the load on the broker.
"""

from __future__ import annotations

from benchmarks.contest import Benchmark, Comparison, Sample, Target
from benchmarks.p4_relay import OBSERVED_SECONDS, QUEUE, ROWS, watch
from benchmarks.stage import Stage, check

KEYS = {"none": 0, "keys-1000": 1000, "keys-8": 8}


def measure(stage: Stage, contender: str) -> Sample:
    """Start the relay on a copy of the filled database whose rows have so many keys, and watch the queue."""
    rows, keys = stage.scale(ROWS, 20_000), KEYS[contender]
    template = f"p4_keyed_{rows}_{keys}"
    if stage.postgres.psql(f"select 1 from pg_database where datname = '{template}'").strip() != "1":
        stage.turn("p4_relay", "fill_spoolproof", url=stage.postgres.create_database(template), rows=rows)
        if keys:
            shards = "(select shards from spoolproof.meta)"
            # a shard has all rows of its keys, as publish() sees to
            change = f"update spoolproof.outbox set ordering_key = 'k' || id % {keys}, shard = id % {keys} % {shards}"
            stage.postgres.psql(change, database=template)
            stage.postgres.psql("vacuum full analyze spoolproof.outbox", database=template)
    database = f"p4_keyed_{stage.serial()}"
    url = stage.postgres.create_database(database, template)
    stage.postgres.psql("checkpoint")
    try:
        with (
            stage.queue("bench", QUEUE) as queue,
            stage.begin("p4_relay", "spoolproof", postgres=url, amqp=stage.rabbitmq.url) as process,
        ):
            depth, shipped, seconds = watch(queue, process, rows, stage.scale(int(OBSERVED_SECONDS), 5))
            check(depth <= rows, "more messages arrived than rows were waiting")
    finally:
        stage.postgres.drop_database(database)
    return {"rate": shipped / seconds}


BENCHMARK = Benchmark(
    id="P4-keyed",
    title="Relay with ordering keys, 100,000 rows waiting",
    contenders={"none": "no keys", "keys-1000": "1,000 keys in turn", "keys-8": "8 keys in turn"},
    measure=measure,
    comparisons=(
        Comparison(
            ours="keys-1000",
            peer="none",
            label="1,000 keys over none",
            metric="rate",
            unit="rows/s",
            target=Target(0.6),
        ),
        Comparison(ours="keys-8", peer=None, label="8 keys", metric="rate", unit="rows/s", target=Target(3_000)),
    ),
    switches={
        "PostgreSQL": "fsync=on, synchronous_commit=on; a fresh copy of the database per turn",
        "queue": "quorum, one node, fresh for every turn",
        "order": "strict: one unconfirmed row per key and destination",
    },
)
