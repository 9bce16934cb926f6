-- Which services share this database. A service's rows are in its block of `meta.shards` shards, the lowest of which is
-- here. Those that ran lately are entered, and what they left in the outbox and among the dead letters becomes theirs.
create table spoolproof.service (
  name text primary key,
  first_shard smallint not null unique check (first_shard >= 0));
insert into spoolproof.service (name, first_shard)
select service, (row_number() over (order by min(started_at), service) - 1) * (select shards from spoolproof.meta)
from spoolproof.process group by service;

update spoolproof.outbox o set shard = o.shard + s.first_shard from spoolproof.service s
where s.first_shard > 0 and o.headers->>'source' = s.name
  and o.headers->'headers'->'spoolproof-replay-of' is null;

alter table spoolproof.dead_letter add column service text not null default '';
update spoolproof.dead_letter d set service = s.name from spoolproof.service s
where s.first_shard > 0 and (
  left(d.consumer, length(s.name) + 1) = s.name || '.'
  or left(d.consumer, 6) = 'relay:' and d.headers->>'source' = s.name);
