-- name: record
-- Guarantees: one row per (consumer, message id); 0 rows changed means it was handled before. SQLite has one writer, so
-- a concurrent record of the same pair has waited for the other transaction to end.
insert into spoolproof_inbox (consumer, message_id) values ($1, $2) on conflict do nothing;

-- name: contains
-- Guarantees: sees committed transactions only.
select exists (select 1 from spoolproof_inbox where consumer = ?1 and message_id = ?2);
