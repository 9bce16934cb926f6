-- name: add
-- Guarantees: one row of each key; whoever comes second waits for the other transaction to end, and changes no row.
insert into {table} (service, scope, key, state) values ($1, $2, $3, $4) on conflict do nothing;

-- name: get
-- Guarantees: one row or none.
select state, answer from {table} where service = $1 and scope = $2 and key = $3;

-- name: answer
-- Guarantees: none; in the transaction that added it.
update {table} set answer = $4 where service = $1 and scope = $2 and key = $3;

-- name: withdraw
-- Guarantees: of two who withdraw one key at once, one gets the answer.
update {table} set state = 'withdrawn' where service = $1 and scope = $2 and key = $3 and state = 'landed'
returning answer;
