-- Small facts that outlive a process, one per (kind, name): what a breaker knew of an outage.
create table spoolproof.state (
  kind text not null,
  name text not null,
  value bytea not null check (length(value) <= 65536),
  version bigint not null default 1,
  updated_at timestamptz not null default clock_timestamp(),
  primary key (kind, name));
