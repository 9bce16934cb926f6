-- name: append_one
-- Guarantees: the row exists if and only if the transaction around it commits. Headers are passed as text: on a
-- connection of the user's, jsonb may have a codec of theirs; and with `cast`, since SQLAlchemy reads `::` otherwise.
insert into spoolproof.outbox (shard, message_id, destination, type, routing_key, ordering_key, headers, body)
values ($1, $2, $3, $4, $5, $6, cast($7 as text)::jsonb, $8);

-- name: append_many
-- Guarantees: as append_one, for all rows or none; ids rise in the order of the arrays.
insert into spoolproof.outbox (shard, message_id, destination, type, routing_key, ordering_key, headers, body)
select r.shard, r.message_id, r.destination, r.type, r.routing_key, r.ordering_key, r.headers::jsonb, r.body
from unnest($1::smallint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[])
  with ordinality r(shard, message_id, destination, type, routing_key, ordering_key, headers, body, position)
order by r.position;

-- name: fetch
-- Guarantees: ready rows only, in id order per shard; no row whose key and destination has a deferred row before it.
-- Reads the primary key from the cursor on, and at most $6 ids of it, whatever the size of the table; the connection's
-- settings see to that. `mark` is for the next read: ids are drawn up to `drawn`, and whoever holds one of them has a
-- lower number than `writer`; it is taken when ids were drawn above $7, and on the disk when the statement returns.
-- `running`: who below $8 has not ended for this snapshot, and so for the rows beside it.
with drawn as materialized (
  select last_value - case when is_called then 0 else 1 end as id from spoolproof.outbox_order),
mark as materialized (
  select id as drawn, pg_postmaster_start_time() as server_since,
    case when id > $7::bigint then pg_current_xact_id()::text::bigint end as writer,
    case when id > $7::bigint then setval('spoolproof.outbox_mark', 1) end as flushed,
    array(select w::text::bigint from pg_snapshot_xip(pg_current_snapshot()) w where w < $8::text::xid8) as running
  from drawn)
select mark.drawn, mark.server_since, mark.writer, mark.flushed, mark.running,
  o.shard, o.id, o.message_id, o.destination, o.type, o.routing_key, o.ordering_key, o.headers, o.body, o.attempts
from mark left join (
  select r.* from unnest($1::smallint[], $2::bigint[]) s(shard, after)
  cross join lateral (
    select * from spoolproof.outbox c
    where c.shard = s.shard and c.state = 0 and c.id > s.after and c.id <= s.after + $6::bigint
      and c.destination <> all ($3::text[]) and c.destination || ' ' || c.type <> all ($3::text[])
      and c.id <> all ($5::bigint[])
      and not exists (
        select 1 from spoolproof.outbox h
        where h.shard = c.shard and h.destination = c.destination and h.ordering_key = c.ordering_key
          and h.state <> 0 and h.id < c.id)
    order by c.id limit $4) r) o on true;

-- name: remove
-- Guarantees: none but these rows are gone. No fence: a confirmed row may always go. One that is deferred at the same
-- moment stays, and is sent again. Each row is looked up by itself: a join may read the whole index instead, which is
-- the cheaper plan for an empty table, and takes minutes in one full of dead rows.
delete from spoolproof.outbox o where o.ctid = any(array(
  select c.ctid from unnest($1::smallint[], $2::bigint[]) r(shard, id)
  cross join lateral (select ctid from spoolproof.outbox where shard = r.shard and id = r.id limit 1) c));

-- name: defer
-- Guarantees: nothing is written under a stale fence; the lease row is locked, so no take-over happens in between.
with fence as materialized (
  select 1 from spoolproof.lease where kind = $5 and name = $6 and owner = $7 and epoch = $8 for share)
update spoolproof.outbox o
set state = 1, attempts = o.attempts + 1, available_at = clock_timestamp() + $3::float8 * interval '1 s', last_error = $4
where o.shard = $1 and o.id = $2 and exists (select 1 from fence);

-- name: promote_due
-- Guarantees: rows become ready no earlier than their time, but for those whose time lies further ahead than it can: the
-- server's clock was put back. now(), not clock_timestamp(): only that can use the index.
update spoolproof.outbox o set state = 0, available_at = null
from unnest($1::smallint[]) s(shard)
cross join lateral (
  (select d.shard, d.id from spoolproof.outbox d
   where d.shard = s.shard and d.state = 1 and d.available_at <= now() limit $2)
  union all
  (select d.shard, d.id from spoolproof.outbox d
   where d.shard = s.shard and d.state = 1 and d.available_at > now() + $3::float8 * interval '1 s' limit $2)) due
where o.shard = due.shard and o.id = due.id and o.state = 1
returning o.shard, o.id;

-- name: take_out
-- Guarantees: before `keep`, whose condition is that a row came out: the message is in exactly one of outbox and
-- dead_letter, also after a crash. None comes out under a stale fence, or when it was confirmed meanwhile.
with fence as materialized (
  select 1 from spoolproof.lease where kind = $23 and name = $24 and owner = $25 and epoch = $26 for share),
taken_out as (
  delete from spoolproof.outbox o
  where o.shard = $21 and o.id = $22 and exists (select 1 from fence)
  returning o.id),

-- name: backlog
-- Guarantees: shards $2 to $3; each count stops at $1. The oldest row of a shard is the one with its lowest id.
select
  (select count(*) from (select 1 from spoolproof.outbox where shard between $2 and $3 limit $1) r) as rows,
  (select count(*) from (
    select 1 from spoolproof.outbox where state = 1 and shard between $2 and $3 limit $1) d) as deferred,
  (select min(f.created_at) from generate_series($2::int, $3::int) s(shard)
   cross join lateral (
     select o.created_at from spoolproof.outbox o where o.shard = s.shard order by o.id limit 1) f) as oldest_at;

-- name: estimate
-- Guarantees: exact up to $1 rows of shards $2 to $3; above, the statistics' figure for all services, which autovacuum
-- and every commit keep near.
select case when counted.rows < $1 then counted.rows
  else greatest(counted.rows, pg_stat_get_live_tuples('spoolproof.outbox'::regclass)) end
from (select count(*) as rows from (
  select 1 from spoolproof.outbox where shard between $2 and $3 limit $1) r) counted;
