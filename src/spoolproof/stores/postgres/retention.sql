-- name: prune_inbox
-- Guarantees: at most $2 rows, oldest first; a row another process deletes is left to it.
delete from spoolproof.inbox i
using (select consumer, message_id from spoolproof.inbox
       where processed_at < now() - $1::float8 * interval '1 s'
       order by processed_at limit $2 for update skip locked) old
where i.consumer = old.consumer and i.message_id = old.message_id;

-- name: prune_dead_letters
-- Guarantees: closed ones only, at most $2, with their audit.
delete from spoolproof.dead_letter d
using (select id from spoolproof.dead_letter
       where closed_at < now() - $1::float8 * interval '1 s'
       order by closed_at limit $2 for update skip locked) old
where d.id = old.id;

-- name: prune_processes
-- Guarantees: only processes that have been gone for a day; at most $1.
delete from spoolproof.process p
using (select id from spoolproof.process where expires_at < now() - interval '1 day' limit $1 for update skip locked) old
where p.id = old.id;
