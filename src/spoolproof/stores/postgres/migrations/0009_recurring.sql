-- When each function that runs by the clock is due next, and the key of the message of its last run.
create table spoolproof.recurring (
  service text not null,
  name text not null,
  expression text not null,
  next_at timestamptz not null,
  declared_at timestamptz not null,
  last_at timestamptz,
  last_key text,
  primary key (service, name));
