-- When each function that runs by the clock is due next, and the key of the message of its last run.
create table spoolproof_recurring (
  service text not null,
  name text not null,
  expression text not null,
  next_at real not null,
  declared_at real not null,
  last_at real,
  last_key text,
  primary key (service, name)
) strict, without rowid;
