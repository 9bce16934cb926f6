-- name: groups
-- Guarantees: open ones only, counted from the index alone; the largest first, at most $2; $1: what is recent, in seconds.
select g.fingerprint, g.consumer, g.count, g.first_failed_at, g.last_failed_at, g.recent,
  d.id as sample_id, d.reason, d.error_class, d.error
from (
  select fingerprint, consumer, count(*) as count, min(first_failed_at) as first_failed_at,
    max(last_failed_at) as last_failed_at, sum(last_failed_at > (select {now} - $1)) as recent
  from spoolproof_dead_letter indexed by spoolproof_dead_letter_groups where state = 'open'{and_where}
  group by fingerprint, consumer order by 3 desc, 5 desc limit $2) g
join spoolproof_dead_letter d on d.id = (
  select n.id from spoolproof_dead_letter n indexed by spoolproof_dead_letter_groups
  where n.state = 'open' and n.fingerprint = g.fingerprint and n.consumer = g.consumer
  order by n.last_failed_at desc limit 1)
order by g.count desc, g.last_failed_at desc;

-- name: count
-- Guarantees: every one that matches.
select count(*) as count from spoolproof_dead_letter where true{and_where};

-- name: edit
-- Guarantees: of two editors of one version, the first; the body it came with is kept.
update spoolproof_dead_letter set message_id = $3, given_id = $4, headers = $5, body = $6,
  original_body = coalesce(original_body, body), version = version + 1
where id = $1 and version = $2 and state = 'open';

-- name: restore
-- Guarantees: nothing that is there is changed.
insert into spoolproof_dead_letter (
  id, consumer, message_id, destination, routing_key, ordering_key, type, headers, body, reason, fingerprint,
  error_class, error, stack, attempts, first_failed_at, last_failed_at, service, given_id, replays, version, original_body)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)
on conflict do nothing;

-- name: note
-- Guarantees: none; always in the transaction of its verb.
insert into spoolproof_dead_letter_audit (dead_letter_id, actor, verb, detail) values ($1, $2, $3, $4);

-- name: note_at
-- Guarantees: as `note`, of what happened elsewhere.
insert into spoolproof_dead_letter_audit (dead_letter_id, at, actor, verb, detail) values ($1, $2, $3, $4, $5);
