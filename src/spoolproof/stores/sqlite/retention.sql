-- name: prune
-- Guarantees: at most $2 rows of one rule, oldest first.
delete from spoolproof_{table} where ({key}) in (
  select {key} from spoolproof_{table} where {since} < {clock} - $1{and_where} order by {since} limit $2);
