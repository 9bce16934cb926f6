-- `message_id` of inbox and dead letters is the message's key from now on: a UUID of its source, type and id. Rows of the
-- earlier release, whose `given_id` is null, have the bare id there when that is a UUID.
alter table spoolproof_dead_letter add column given_id text;
