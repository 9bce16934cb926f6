-- name: record
-- Guarantees: one row per (consumer, message id). A concurrent insert of the same pair waits for the other transaction
-- to end; 0 rows changed means it was handled before.
insert into spoolproof.inbox (consumer, message_id) values ($1, $2) on conflict do nothing;

-- name: contains
-- Guarantees: sees committed transactions only.
select exists (select 1 from spoolproof.inbox where consumer = $1 and message_id = $2);
