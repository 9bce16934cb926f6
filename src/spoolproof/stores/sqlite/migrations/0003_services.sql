-- Which services share this file. A service's rows are in its shard. Those that ran lately are entered here, and what
-- they left in the outbox and among the dead letters becomes theirs.
create table spoolproof_service (
  name text primary key,
  first_shard integer not null unique
) strict;
insert into spoolproof_service (name, first_shard)
select service, row_number() over (order by min(started_at), service) - 1 from spoolproof_process group by service;

update spoolproof_outbox set shard = s.first_shard from spoolproof_service s
where s.first_shard > 0 and json_extract(headers, '$.source') = s.name
  and json_extract(headers, '$.headers."spoolproof-replay-of"') is null;

alter table spoolproof_dead_letter add column service text not null default '';
update spoolproof_dead_letter set service = s.name from spoolproof_service s
where s.first_shard > 0 and (
  substr(consumer, 1, length(s.name) + 1) = s.name || '.'
  or substr(consumer, 1, 6) = 'relay:' and json_extract(headers, '$.source') = s.name);
