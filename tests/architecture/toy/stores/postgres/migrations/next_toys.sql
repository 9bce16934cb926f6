-- Toys that were played with lately.
create table spoolproof.toy (
  name text primary key,
  is_broken boolean not null default false,
  played_at timestamptz not null default clock_timestamp());
create index toy_played on spoolproof.toy (played_at);
