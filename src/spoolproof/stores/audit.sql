-- name: begin
-- Guarantees: one row for each act.
insert into {audit} (id, at, record) values ($1, $2, $3);

-- name: end
-- Guarantees: nothing is written for an act that is gone.
update {audit} set record = $2 where id = $1;

-- name: search
-- Guarantees: newest first, for ids are in the order of time.
select record from {audit} where id < $1 order by id desc limit $2;
