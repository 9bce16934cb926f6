-- name: begin
-- Guarantees: nothing without the dead letter that the key is held for.
insert into spoolproof.held_key (consumer, ordering_key, head)
select $1, $2, id from spoolproof.dead_letter where consumer = $1 and message_id = $3
on conflict (consumer, ordering_key) do update set head = excluded.head;

-- name: is_held
-- Guarantees: none; the row may go at any time.
select 1 from spoolproof.held_key where consumer = $1 and ordering_key = $2;

-- name: lock
-- Guarantees: the row of the key is this transaction's to the end; each time another number.
update spoolproof.held_key set last_seq = last_seq + 1 where consumer = $1 and ordering_key = $2 returning last_seq;

-- name: count
-- Guarantees: bounded work; the count stops at $3.
select count(*) as messages from (select 1 from spoolproof.dead_letter
  where consumer = $1 and ordering_key = $2 and state = 'held' limit $3) held;

-- name: is_known
-- Guarantees: whatever its state, a message is not held twice.
select 1 from spoolproof.dead_letter where consumer = $1 and message_id = $2
union all select 1 from spoolproof.inbox where consumer = $1 and message_id in ($2, $3::text) limit 1;

-- name: hold
-- Guarantees: under the lock, behind all that is held of the key.
insert into spoolproof.dead_letter (
  id, consumer, message_id, destination, routing_key, ordering_key, type, headers, body,
  reason, fingerprint, error_class, error, stack, attempts, first_failed_at, last_failed_at, service, given_id,
  state, hold_seq)
values ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9, $10, $11, $12, $13, $14, $15::jsonb, $16, $17, $18, $19, 'held', $20);

-- name: note
-- Guarantees: none; always in the transaction of `hold`.
insert into spoolproof.dead_letter_audit (dead_letter_id, actor, verb) values ($1, 'spoolproof', 'held');

-- name: released
-- Guarantees: at most $2 keys.
select ordering_key from spoolproof.held_key h where consumer = $1
  and not exists (select 1 from spoolproof.dead_letter d where d.id = h.head and d.state in ('open', 'replaying'))
order by since limit $2;

-- name: next
-- Guarantees: the one that was held first; one row or none.
select * from spoolproof.dead_letter where consumer = $1 and ordering_key = $2 and state = 'held'
order by hold_seq limit 1;

-- name: release
-- Guarantees: under the lock; nothing is left behind without its key.
delete from spoolproof.held_key as h where consumer = $1 and ordering_key = $2
  and not exists (select 1 from spoolproof.dead_letter d where d.id = h.head and d.state in ('open', 'replaying'))
  and not exists (select 1 from spoolproof.dead_letter d
    where d.consumer = h.consumer and d.ordering_key = h.ordering_key and d.state = 'held');

-- name: all
-- Guarantees: at most $2 keys; each count stops at $3.
select consumer, ordering_key, head, since, (select count(*) from (select 1 from spoolproof.dead_letter d
  where d.consumer = h.consumer and d.ordering_key = h.ordering_key and d.state = 'held' limit $3) held) as messages
from spoolproof.held_key h where consumer = $1 order by since limit $2;
