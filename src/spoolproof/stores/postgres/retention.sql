-- name: prune
-- Guarantees: at most $2 rows of one rule, oldest first; a row that another process deletes is left to it.
delete from spoolproof.{table} t using (
  select {key} from spoolproof.{table} where {since} < now() - $1::float8 * interval '1 s'{and_where}
  order by {since} limit $2 for update skip locked) old
where {same_key};
