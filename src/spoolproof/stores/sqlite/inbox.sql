-- name: record
-- Guarantees: one row per (consumer, key); 0 rows changed means it was handled before, also under the earlier release's
-- key $3. SQLite has one writer, so a concurrent record of the same pair has waited for the other transaction to end.
insert into spoolproof_inbox (consumer, message_id)
select $1, $2 where not exists (select 1 from spoolproof_inbox where consumer = $1 and message_id = $3)
on conflict do nothing;

-- name: contains
-- Guarantees: sees committed transactions only.
select exists (select 1 from spoolproof_inbox where consumer = ?1 and message_id in (?2, ?3));

-- name: forget
-- Guarantees: none; a record of the message after it is new again.
delete from spoolproof_inbox where consumer = $1 and message_id in ($2, $3);
