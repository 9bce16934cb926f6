-- name: add
-- Guarantees: nothing is written over what is there.
insert into spoolproof.webhook_endpoint (name, url, secrets, types) values ($1, $2, $3, $4)
on conflict do nothing;

-- name: all
-- Guarantees: every endpoint, sorted by name as bytes, whatever the database's collation.
select name, url, secrets, types, state, failing_since, note from spoolproof.webhook_endpoint order by name collate "C";

-- name: change
-- Guarantees: what is active has not failed yet.
update spoolproof.webhook_endpoint
set state = $2::text, note = $3, failing_since = case when $2::text = 'active' then null else failing_since end
where name = $1;

-- name: sign_with
-- Guarantees: nothing but its secrets changes.
update spoolproof.webhook_endpoint set secrets = $2 where name = $1;

-- name: remove
-- Guarantees: this one and no other.
delete from spoolproof.webhook_endpoint where name = $1;

-- name: note
-- Guarantees: only what is active is paused, and only what has failed ever since for $3 seconds; $2 null: a success.
update spoolproof.webhook_endpoint set
  failing_since = case when $2::text is null then null else coalesce(failing_since, clock_timestamp()) end,
  note = case when state = 'active' then coalesce($2::text, '') else note end,
  state = case when state = 'active' and $2::text is not null
      and coalesce(failing_since, clock_timestamp()) <= clock_timestamp() - $3::float8 * interval '1 s'
    then 'paused' else state end
where name = $1 returning state;

-- name: waiting
-- Guarantees: at most $1 rows are counted.
select substr(r.destination, 9) as name, count(*) as rows
from (select destination from spoolproof.outbox where shard < 0 limit $1) r group by r.destination;
