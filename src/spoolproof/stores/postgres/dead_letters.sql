-- name: keep
-- Guarantees: one row per (consumer, message), open afterwards; nothing is written unless {condition}. `message_id` is
-- the message's key; a row that the earlier release wrote under the bare id goes on under that.
{before} kept as (
  insert into spoolproof.dead_letter as d (
    id, consumer, message_id, destination, routing_key, ordering_key, type, headers, body,
    reason, fingerprint, error_class, error, stack, attempts, first_failed_at, last_failed_at, service, given_id)
  select $1, $2::text, coalesce((
      select e.message_id from spoolproof.dead_letter e where e.consumer = $2 and e.given_id is null
        and e.message_id in ($19::text, lower($19)) and e.type = $7 and e.headers->>'source' = $20::text), $3::text),
    $4, $5, $6, $7, $8::jsonb, $9, $10::text, $11, $12, $13, $14, $15::jsonb, $16, $17, $18, $19
  where {condition}
  on conflict (consumer, message_id) do update
  set state = 'open', closed_at = null, reason = excluded.reason, fingerprint = excluded.fingerprint,
    error_class = excluded.error_class, error = excluded.error, stack = excluded.stack, attempts = excluded.attempts,
    last_failed_at = excluded.last_failed_at, note = null, service = excluded.service
  returning d.id),
audit as (
  insert into spoolproof.dead_letter_audit (dead_letter_id, actor, verb, detail)
  select id, 'spoolproof', 'recorded', $10 from kept)
select id from kept;

-- name: is_not_handled
-- Guarantees: the condition of `keep` for a consumer; the inbox knows neither the message's key nor that of the earlier
-- release, $21.
not exists (select 1 from spoolproof.inbox i where i.consumer = $2 and i.message_id in ($3, $21::text))

-- name: get
-- Guarantees: one row or none.
select * from spoolproof.dead_letter where id = $1;

-- name: audit_of
-- Guarantees: oldest first.
select at, actor, verb, detail from spoolproof.dead_letter_audit where dead_letter_id = $1 order by id;

-- name: search
-- Guarantees: every given field matches; oldest failure first; at most $1 rows.
select * from spoolproof.dead_letter where true{and_where} order by first_failed_at, id limit $1;

-- name: counts
-- Guarantees: bounded work; each count stops at $2.
select s.state, (select count(*) from (
  select 1 from spoolproof.dead_letter d where d.state = s.state limit $2) c) as count
from unnest($1::text[]) s(state);

-- name: replay
-- Guarantees: moved and the copy in the outbox of its service, both or neither; of two at once, one makes replay $2; what
-- is sent is the version that was read, $14. One message has one dead letter of a consumer, $13.
with moved as (
  update spoolproof.dead_letter d set state = 'replaying', replays = $2, replayed_at = clock_timestamp(),
    consumer = $13, destination = $7, routing_key = $9
  where id = $1 and state in ({may_be_replayed}) and replays = $2 - 1 and version = $14 and not exists (
    select 1 from spoolproof.dead_letter o where o.consumer = $13 and o.message_id = d.message_id and o.id <> d.id)
  returning id, service),
copy as (
  insert into spoolproof.outbox (shard, message_id, destination, type, routing_key, ordering_key, headers, body)
  select case when $7 like 'webhook:%' then -1 - placed.shard / greatest(1, m.shards / 4) else placed.shard end,
    $6, $7, $8, $9, $10, $11::jsonb, $12
  from moved cross join spoolproof.meta m cross join lateral (
    select $5 + coalesce((select s.first_shard from spoolproof.service s where s.name = moved.service), 0) as shard
  ) placed),
audit as (
  insert into spoolproof.dead_letter_audit (dead_letter_id, actor, verb, detail) select id, $3, 'replayed', $4 from moved)
select id from moved;

-- name: discard
-- Guarantees: only where it may be; the content stays.
with moved as (
  update spoolproof.dead_letter set state = 'discarded', closed_at = clock_timestamp(), note = $3
  where id = $1 and state in ({may_be_discarded})
  returning id),
audit as (
  insert into spoolproof.dead_letter_audit (dead_letter_id, actor, verb, detail) select id, $2, 'discarded', $3 from moved)
select id from moved;

-- name: resolve
-- Guarantees: resolved if and only if the transaction of the success commits.
with moved as (
  update spoolproof.dead_letter set state = 'resolved', closed_at = clock_timestamp()
  where consumer = $1 and state in ({may_be_resolved}) and (message_id = $2 or given_id is null
    and message_id in ($3::text, lower($3)) and type = $4 and headers->>'source' = $5)
  returning id),
audit as (
  insert into spoolproof.dead_letter_audit (dead_letter_id, actor, verb) select id, 'spoolproof', 'resolved' from moved)
select id from moved;
