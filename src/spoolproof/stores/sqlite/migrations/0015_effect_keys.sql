-- Keys of effects that a receiver has had, with the answer it gave. withdrawn: undone, or not to take place any more.
create table spoolproof_effect_key (
  service text not null,
  scope text not null,
  key text not null,
  state text not null check (state in ('landed', 'withdrawn')),
  answer blob,
  created_at real not null default ((julianday('now') - 2440587.5) * 86400.0),
  primary key (service, scope, key)
) strict, without rowid;
create index spoolproof_effect_key_created on spoolproof_effect_key (created_at);
