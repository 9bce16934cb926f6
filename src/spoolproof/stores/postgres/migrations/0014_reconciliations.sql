-- Keys that are checked until they are settled, and runs that compare two systems; a run is one value.
create table spoolproof.reconciliation_mark (
  service text not null,
  reconciler text not null,
  key text not null,
  dirty int not null default 1,
  failures int not null default 0,
  next_at timestamptz not null,
  note text not null default '',
  primary key (service, reconciler, key)
);
create index reconciliation_mark_due on spoolproof.reconciliation_mark (service, next_at);

create table spoolproof.reconciliation_run (
  id text primary key,
  service text not null,
  reconciler text not null,
  started_at timestamptz not null,
  finished_at timestamptz,
  version int not null,
  record text not null
);
create unique index reconciliation_run_unfinished on spoolproof.reconciliation_run (service, reconciler)
where finished_at is null;
create index reconciliation_run_started on spoolproof.reconciliation_run (service, reconciler, started_at);
