-- name: play
-- Guarantees: one row per name; what is broken stays broken.
insert into spoolproof.toy as t (name, is_broken) values ($1, $2)
on conflict (name) do update set is_broken = t.is_broken or excluded.is_broken, played_at = clock_timestamp();

-- name: all
-- Guarantees: every toy, sorted by name as bytes, whatever the database's collation.
select name, is_broken from spoolproof.toy order by name collate "C";
