-- The embedded broker's database. Every statement may run again: each process runs all of them at its start.

create table if not exists queue (
  name text primary key,
  delivery_limit integer,                 -- redeliveries before a message moves to dead_queue; null: no limit
  dead_queue text,                        -- null: a dead, delay or unrouted queue, which gives nothing up
  delay_seconds integer,                  -- set: messages wait here so long, then go to their return_queue
  unrouted_queue text,                    -- where a delayed message goes whose return_queue is gone
  owner_uuid text,                        -- of one process's own queue: it goes when that is no owner any more
  rows integer not null default 0         -- kept by the triggers below, because counting reads every row
) strict, without rowid;

create table if not exists binding (
  exchange text not null,
  pattern text not null,
  queue text not null,
  primary key (exchange, pattern, queue)
) strict, without rowid;

-- One row: raised by every change to queue names or bindings, so that routes can be cached.
create table if not exists topology (only_row integer primary key check (only_row = 1), version integer not null) strict;
insert or ignore into topology (only_row, version) values (1, 0);

-- A process that holds messages. uuid names its lock file; ids are never used twice.
create table if not exists owner (
  id integer primary key autoincrement,
  uuid text not null unique,
  expires_at real not null
) strict;

-- id is the place in the queue. A claim is (id, owner, claims): settling names all three, so a late answer to a
-- claim that was rescued changes nothing. claims counts how often the message was handed out.
create table if not exists message (
  id integer primary key autoincrement,
  queue text not null,
  message_id text not null,
  type text not null,
  ordering_key text,
  owner integer,
  claims integer not null default 0,
  dead_reason text,
  return_queue text,                      -- of a delayed copy, also when that queue was gone
  available_at real,                      -- set: a delayed message, by the clock that nobody sets
  headers text not null,
  body blob not null,
  routing_key text not null default ''    -- empty for what was sent to a queue
) strict;

create index if not exists message_ready on message (queue, id) where owner is null and available_at is null;
create index if not exists message_owned on message (owner) where owner is not null;
create index if not exists message_delayed on message (available_at, id) where available_at is not null;

create trigger if not exists message_added after insert on message
  begin update queue set rows = rows + 1 where name = new.queue; end;
create trigger if not exists message_removed after delete on message
  begin update queue set rows = rows - 1 where name = old.queue; end;
create trigger if not exists message_moved after update of queue on message when old.queue <> new.queue
  begin
    update queue set rows = rows - 1 where name = old.queue;
    update queue set rows = rows + 1 where name = new.queue;
  end;
