-- name: add_one
-- Guarantees: the row exists if and only if the transaction around it commits. Due at $10, or $11 seconds from now by the
-- server's clock. With `cast`: SQLAlchemy reads `::` otherwise, and a user's connection may have a codec for jsonb.
insert into spoolproof.scheduled
  (shard, message_id, destination, type, routing_key, ordering_key, headers, body, service, due_at)
values ($1, $2, $3, $4, $5, $6, cast($7 as text)::jsonb, $8, $9,
  coalesce(to_timestamp(cast($10 as double precision)),
    clock_timestamp() + cast($11 as double precision) * interval '1 s'));

-- name: add_many
-- Guarantees: as add_one, for all rows or none; ids rise in the order of the arrays.
insert into spoolproof.scheduled
  (shard, message_id, destination, type, routing_key, ordering_key, headers, body, service, due_at)
select r.shard, r.message_id, r.destination, r.type, r.routing_key, r.ordering_key, r.headers::jsonb, r.body, r.service,
  coalesce(to_timestamp(r.at), clock_timestamp() + r.delay * interval '1 s')
from unnest($1::smallint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[],
    $9::text[], $10::float8[], $11::float8[]) with ordinality
  r(shard, message_id, destination, type, routing_key, ordering_key, headers, body, service, at, delay, position)
order by r.position;

-- name: promote
-- Guarantees: each message is in exactly one of scheduled and outbox, also after a crash; ids of the outbox rise in the
-- order in which the rows are due. Whoever cancels one at this moment waits, and finds it gone; one that is being
-- cancelled is left out.
with due as (
  select id from spoolproof.scheduled where service = $1 and due_at <= now()
  order by due_at, id limit $2 for update skip locked),
gone as (
  delete from spoolproof.scheduled s using due where s.id = due.id returning s.*),
moved as (
  insert into spoolproof.outbox (shard, message_id, destination, type, routing_key, ordering_key, headers, body)
  select shard, message_id, destination, type, routing_key, ordering_key, headers, body from gone order by due_at, id
  returning 1)
select (select count(*) from moved) as rows,
  coalesce((select extract(epoch from clock_timestamp() - min(due_at)) from gone), 0)::float8 as late_seconds;

-- name: cancel
-- Guarantees: what is deleted here was never promoted.
delete from spoolproof.scheduled
where message_id = cast($1 as text) and (cast($2 as text) is null or service = cast($2 as text));

-- name: search
-- Guarantees: due first first.
select service, message_id, destination, type, routing_key, ordering_key, headers, body, due_at, created_at
from spoolproof.scheduled where $1::text is null or service = $1 order by due_at, id limit $2;

-- name: count
-- Guarantees: reads an index only, and at most $2 entries of it.
select count(*) from (select 1 from spoolproof.scheduled where service = $1 limit $2) r;
