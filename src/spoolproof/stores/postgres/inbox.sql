-- name: record
-- Guarantees: one row per (consumer, key). A concurrent insert of the same pair waits for the other transaction to end;
-- 0 rows changed means it was handled before, also under the earlier release's key $3.
insert into spoolproof.inbox (consumer, message_id)
select $1::text, $2::text
where not exists (select 1 from spoolproof.inbox where consumer = $1 and message_id = $3::text)
on conflict do nothing;

-- name: contains
-- Guarantees: sees committed transactions only.
select exists (select 1 from spoolproof.inbox where consumer = $1 and message_id in ($2, $3::text));

-- name: forget
-- Guarantees: none; a record of the message after it is new again.
delete from spoolproof.inbox where consumer = $1 and message_id in ($2, $3::text);
