-- name: keep
-- Guarantees: one row per (consumer, message), open afterwards. `message_id` is the message's key; a row that the earlier
-- release wrote under the bare id goes on under that.
insert into spoolproof_dead_letter (
  id, consumer, message_id, destination, routing_key, ordering_key, type, headers, body,
  reason, fingerprint, error_class, error, stack, attempts, first_failed_at, last_failed_at, service,
  given_id)
values (?1, ?2, coalesce((
    select message_id from spoolproof_dead_letter where consumer = ?2 and given_id is null
      and message_id in (?19, lower(?19)) and type = ?7 and json_extract(headers, '$.source') = ?20), ?3),
  ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
on conflict (consumer, message_id) do update
set state = 'open', closed_at = null, note = null, reason = excluded.reason, fingerprint = excluded.fingerprint,
  error_class = excluded.error_class, error = excluded.error, stack = excluded.stack, attempts = excluded.attempts,
  last_failed_at = excluded.last_failed_at, service = excluded.service
returning id;

-- name: note
-- Guarantees: none; always in the transaction of its verb.
insert into spoolproof_dead_letter_audit (dead_letter_id, actor, verb, detail) values (?1, ?2, ?3, ?4);

-- name: get
-- Guarantees: one row or none.
select * from spoolproof_dead_letter where id = ?1;

-- name: search
-- Guarantees: every given field matches; oldest failure first; at most $1 rows.
select * from spoolproof_dead_letter where true{and_where} order by first_failed_at, id limit $1;

-- name: audit_of
-- Guarantees: oldest first.
select at, actor, verb, detail from spoolproof_dead_letter_audit where dead_letter_id = ?1 order by id;

-- name: count
-- Guarantees: bounded work; the count stops at ?2.
select count(*) from (
  select 1 from spoolproof_dead_letter indexed by spoolproof_dead_letter_age where state = ?1 limit ?2);

-- name: start_replay
-- Guarantees: of two at once, one moves it, and the version that was read; one message has one dead letter of a consumer.
update spoolproof_dead_letter as d set state = 'replaying', replays = replays + 1, replayed_at = {now},
  consumer = ?4, destination = ?5, routing_key = ?6
where id = ?1 and state in ({may_be_replayed}) and replays = ?2 and version = ?3 and not exists (
  select 1 from spoolproof_dead_letter o where o.consumer = ?4 and o.message_id = d.message_id and o.id <> d.id);

-- name: discard
-- Guarantees: only where it may be; the content stays.
update spoolproof_dead_letter set state = 'discarded', closed_at = {now}, note = ?2
where id = ?1 and state in ({may_be_discarded});

-- name: note_resolved
-- Guarantees: an audit row if and only if `resolve`, which follows in the same transaction, changes the row.
insert into spoolproof_dead_letter_audit (dead_letter_id, actor, verb)
select id, 'spoolproof', 'resolved' from spoolproof_dead_letter
where consumer = $1 and state in ({may_be_resolved}) and (message_id = $2 or given_id is null
  and message_id in ($3, lower($3)) and type = $4 and json_extract(headers, '$.source') = $5);

-- name: resolve
-- Guarantees: resolved if and only if the transaction of the success commits.
update spoolproof_dead_letter set state = 'resolved', closed_at = {now}
where consumer = $1 and state in ({may_be_resolved}) and (message_id = $2 or given_id is null
  and message_id in ($3, lower($3)) and type = $4 and json_extract(headers, '$.source') = $5);
