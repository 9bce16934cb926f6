-- Small facts that outlive a process, one per (kind, name): what a breaker knew of an outage.
create table spoolproof_state (
  kind text not null,
  name text not null,
  value blob not null check (length(value) <= 65536),
  version integer not null default 1,
  updated_at real not null default ((julianday('now') - 2440587.5) * 86400.0),
  primary key (kind, name)
) strict, without rowid;
