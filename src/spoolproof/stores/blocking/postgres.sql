-- name: place
-- Guarantees: never fails for a missing table, so that it may be asked inside a user's transaction.
select current_database() as name,
  to_regclass('spoolproof.outbox') is not null and to_regclass('spoolproof.service') is not null as has_outbox;

-- name: append
-- Guarantees: the row exists if and only if the transaction around it commits. No row: the service has no block yet.
insert into spoolproof.outbox (shard, message_id, destination, type, routing_key, ordering_key, headers, body)
select s.first_shard + mod(cast($2 as bigint), m.shards), cast($3 as text), cast($4 as text), cast($5 as text),
  cast($6 as text), cast($7 as text), cast($8 as jsonb), cast($9 as bytea)
from spoolproof.service s cross join spoolproof.meta m where s.name = cast($1 as text);

-- name: schedule
-- Guarantees: as append. Due at $10, or $11 seconds from now by the server's clock.
insert into spoolproof.scheduled
  (shard, message_id, destination, type, routing_key, ordering_key, headers, body, service, due_at)
select s.first_shard + mod(cast($2 as bigint), m.shards), cast($3 as text), cast($4 as text), cast($5 as text),
  cast($6 as text), cast($7 as text), cast($8 as jsonb), cast($9 as bytea), s.name,
  coalesce(to_timestamp(cast($10 as double precision)),
    clock_timestamp() + cast($11 as double precision) * interval '1 s')
from spoolproof.service s cross join spoolproof.meta m where s.name = cast($1 as text);

-- name: claim
-- Guarantees: no block is given twice, and the claim lives or dies with the row it is made for.
insert into spoolproof.service (name, first_shard)
select cast($1 as text), block.first_shard
from spoolproof.meta m cross join lateral generate_series(0, 32768 - m.shards, m.shards) block(first_shard)
where not exists (select 1 from spoolproof.service s where s.name = cast($1 as text))
  and not exists (select 1 from spoolproof.service s where s.first_shard = block.first_shard)
order by block.first_shard limit 1
on conflict do nothing;

-- name: rows
-- Guarantees: exact up to $2 rows of the service; above, the statistics' figure for all services.
select case when counted.rows < cast($2 as bigint) then counted.rows
  else greatest(counted.rows, pg_stat_get_live_tuples(cast('spoolproof.outbox' as regclass))) end as rows
from (select count(*) as rows from (
  select 1 from spoolproof.service s cross join spoolproof.meta m
  join spoolproof.outbox o on o.shard between s.first_shard and s.first_shard + m.shards - 1
  where s.name = cast($1 as text) limit cast($2 as bigint)) r) counted;

-- name: scheduled_rows
-- Guarantees: at most $2 are counted.
select count(*) as rows from (
  select 1 from spoolproof.scheduled where service = cast($1 as text) limit cast($2 as bigint)) r;
