-- name: get
-- Guarantees: committed values only.
select value, version, updated_at from spoolproof.state where kind = $1 and name = $2;

-- name: put
-- Guarantees: one row per (kind, name); the version rises with every put.
insert into spoolproof.state as s (kind, name, value) values ($1, $2, $3)
on conflict (kind, name) do update
set value = excluded.value, version = s.version + 1, updated_at = clock_timestamp()
returning version;

-- name: all
-- Guarantees: every row of the kind, sorted by name as bytes, whatever the database's collation.
select name, value, version, updated_at from spoolproof.state where kind = $1 order by name collate "C";

-- name: remove
-- Guarantees: at most one row.
delete from spoolproof.state where kind = $1 and name = $2;
