-- name: prune_inbox
-- Guarantees: at most ?2 rows, oldest first.
delete from spoolproof_inbox where (consumer, message_id) in (
  select consumer, message_id from spoolproof_inbox
  where processed_at < {now} - ?1 order by processed_at limit ?2);

-- name: prune_dead_letters
-- Guarantees: closed ones only, at most ?2, oldest first, with their audit.
delete from spoolproof_dead_letter where id in (
  select id from spoolproof_dead_letter where closed_at < {now} - ?1 order by closed_at limit ?2);

-- name: prune_processes
-- Guarantees: only processes that have been gone for a day; at most ?1.
delete from spoolproof_process where id in (
  select id from spoolproof_process where expires_at < {steady} - 86400 limit ?1);
