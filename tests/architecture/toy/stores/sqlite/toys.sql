-- name: play
-- Guarantees: one row per name; what is broken stays broken.
insert into spoolproof_toy (name, is_broken) values (?1, ?2)
on conflict (name) do update set is_broken = max(is_broken, excluded.is_broken), played_at = {now};

-- name: all
-- Guarantees: every toy, sorted by name.
select name, is_broken from spoolproof_toy order by name;
