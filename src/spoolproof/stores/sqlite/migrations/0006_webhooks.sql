-- Endpoints, and the row each gets for an event, in the statement that writes the event: whoever publishes, and however.
-- Secrets and types are JSON arrays of text.
create table spoolproof_webhook_endpoint (
  name text primary key,
  url text not null,
  secrets text not null,
  types text not null,
  state text not null default 'active' check (state in ('active', 'paused', 'disabled')),
  failing_since real,
  note text not null default ''
) strict, without rowid;

create trigger spoolproof_webhook_fan_out after insert on spoolproof_outbox
when new.destination = 'events' and exists (select 1 from spoolproof_webhook_endpoint)
  and json_extract(new.headers, '$.headers."spoolproof-replay-of"') is null
begin
  insert into spoolproof_outbox (shard, message_id, destination, type, headers, body)
  select -1 - new.shard, new.message_id, 'webhook:' || e.name, new.type, new.headers, new.body
  from spoolproof_webhook_endpoint e
  where e.state <> 'disabled' and exists (select 1 from json_each(e.types) t where t.value in ('*', new.type))
  order by e.name;
end;
