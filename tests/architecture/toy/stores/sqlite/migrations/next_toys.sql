-- Toys that were played with lately.
create table spoolproof_toy (
  name text primary key,
  is_broken integer not null default 0,
  played_at real not null default ((julianday('now') - 2440587.5) * 86400.0)
) strict, without rowid;
create index spoolproof_toy_played on spoolproof_toy (played_at);
