-- Endpoints, and the row each gets for an event, in the statement that writes the event: whoever publishes, and however.
-- The rows of webhooks are read by nobody who may only publish: the function runs as the owner of the tables. What it
-- writes fires it again, with no event among it.
create table spoolproof.webhook_endpoint (
  name text primary key,
  url text not null,
  secrets text[] not null,
  types text[] not null,
  state text not null default 'active' check (state in ('active', 'paused', 'disabled')),
  failing_since timestamptz,
  note text not null default '');

create function spoolproof.webhook_fan_out() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
begin
  if exists (select 1 from spoolproof.webhook_endpoint) and exists (select 1 from added where destination = 'events') then
    insert into spoolproof.outbox (shard, message_id, destination, type, headers, body)
    select -1 - a.shard / greatest(1, m.shards / 4), a.message_id, 'webhook:' || e.name, a.type, a.headers, a.body
    from added a cross join spoolproof.meta m
    join spoolproof.webhook_endpoint e on e.state <> 'disabled' and (a.type = any (e.types) or '*' = any (e.types))
    where a.destination = 'events' and a.headers->'headers'->'spoolproof-replay-of' is null
    order by a.id, e.name;
  end if;
  return null;
end $$;

create trigger webhook_fan_out after insert on spoolproof.outbox
referencing new table as added for each statement execute function spoolproof.webhook_fan_out();
