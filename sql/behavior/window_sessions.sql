-- The item events of one window with their sessions: what came before its end.
SELECT * FROM all_sessions
WHERE event_time < $until
