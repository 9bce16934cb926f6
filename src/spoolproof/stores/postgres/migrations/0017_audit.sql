-- What people did through a dashboard; an act is one value, kept before it is done.
create table spoolproof.audit (
  id text collate "C" primary key,
  at timestamptz not null,
  record text not null
);
create index audit_at on spoolproof.audit (at);
