-- name: groups
-- Guarantees: open ones only, counted from the index alone; the largest first, at most $2; $1: what is recent, in seconds.
select g.*, d.id as sample_id, d.reason, d.error_class, d.error from (
  select fingerprint, consumer, count(*) as count, min(first_failed_at) as first_failed_at,
    max(last_failed_at) as last_failed_at,
    count(*) filter (where last_failed_at > clock_timestamp() - make_interval(secs => $1)) as recent
  from spoolproof.dead_letter where state = 'open'{and_where}
  group by fingerprint, consumer order by count(*) desc, max(last_failed_at) desc limit $2) g
cross join lateral (
  select id, reason, error_class, error from spoolproof.dead_letter d
  where d.state = 'open' and d.fingerprint = g.fingerprint and d.consumer = g.consumer
  order by d.last_failed_at desc limit 1) d
order by g.count desc, g.last_failed_at desc;

-- name: count
-- Guarantees: every one that matches.
select count(*) as count from spoolproof.dead_letter where true{and_where};

-- name: edit
-- Guarantees: of two editors of one version, the first; the body it came with is kept.
update spoolproof.dead_letter set message_id = $3, given_id = $4, headers = $5::jsonb, body = $6,
  original_body = coalesce(original_body, body), version = version + 1
where id = $1 and version = $2 and state = 'open';

-- name: restore
-- Guarantees: nothing that is there is changed.
insert into spoolproof.dead_letter (
  id, consumer, message_id, destination, routing_key, ordering_key, type, headers, body, reason, fingerprint,
  error_class, error, stack, attempts, first_failed_at, last_failed_at, service, given_id, replays, version, original_body)
values ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9, $10, $11, $12, $13, $14, $15::jsonb, $16, $17, $18, $19, $20, $21, $22)
on conflict do nothing;

-- name: note
-- Guarantees: none; always in the transaction of its verb.
insert into spoolproof.dead_letter_audit (dead_letter_id, actor, verb, detail) values ($1, $2, $3, $4);

-- name: note_at
-- Guarantees: as `note`, of what happened elsewhere.
insert into spoolproof.dead_letter_audit (dead_letter_id, at, actor, verb, detail) values ($1, $2, $3, $4, $5);
