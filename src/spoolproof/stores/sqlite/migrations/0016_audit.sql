-- What people did through a dashboard; an act is one value, kept before it is done.
create table spoolproof_audit (
  id text primary key,
  at real not null,
  record text not null
) strict;
create index spoolproof_audit_at on spoolproof_audit (at);
