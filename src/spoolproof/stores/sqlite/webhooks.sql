-- name: add
-- Guarantees: nothing is written over what is there.
insert into spoolproof_webhook_endpoint (name, url, secrets, types) values (?1, ?2, ?3, ?4) on conflict do nothing;

-- name: all
-- Guarantees: every endpoint, sorted by name.
select name, url, secrets, types, state, failing_since, note from spoolproof_webhook_endpoint order by name;

-- name: change
-- Guarantees: what is active has not failed yet.
update spoolproof_webhook_endpoint
set state = ?2, note = ?3, failing_since = case when ?2 = 'active' then null else failing_since end where name = ?1;

-- name: sign_with
-- Guarantees: nothing but its secrets changes.
update spoolproof_webhook_endpoint set secrets = ?2 where name = ?1;

-- name: remove
-- Guarantees: this one and no other.
delete from spoolproof_webhook_endpoint where name = ?1;

-- name: note
-- Guarantees: only what is active is paused, and only what has failed ever since for ?3 seconds; ?2 null: a success.
update spoolproof_webhook_endpoint set
  failing_since = case when ?2 is null then null else coalesce(failing_since, {now}) end,
  note = case when state = 'active' then coalesce(?2, '') else note end,
  state = case when state = 'active' and ?2 is not null and coalesce(failing_since, {now}) <= {now} - ?3
    then 'paused' else state end
where name = ?1 returning state;

-- name: waiting
-- Guarantees: at most ?1 rows are counted.
select substr(destination, 9), count(*) from (
  select destination from spoolproof_outbox where shard < 0 limit ?1) group by destination;
