"""The SQL of flow control, by name; its tables are among the migrations of `statements`."""

from __future__ import annotations

READ_METER = "SELECT at FROM meters WHERE name = ?"
PUT_METER = """
    INSERT INTO meters (name, at, count, until) VALUES (?, ?, 0, ?)
    ON CONFLICT (name) DO UPDATE SET at = excluded.at, until = excluded.until
"""
GIVE_BACK = "UPDATE meters SET at = at - ?2 WHERE name = ?1"
FORGET_METERS = """
    DELETE FROM meters WHERE name IN (SELECT name FROM meters INDEXED BY meters_over WHERE until < ? LIMIT ?)
"""

HOLD_EVENT = "INSERT INTO held (slug, key, since, event_id, body) VALUES (?, ?, ?, ?, ?)"
COUNT_HELD = "SELECT count(*) FROM held WHERE slug = ? AND key = ?"
TAKE_HELD = "DELETE FROM held WHERE slug = ? AND key = ? RETURNING seq, since, event_id, body"

PUT_FIRST_JOB = "INSERT INTO jobs (run_id, target, kind, due, rank) VALUES (?, ?, ?, ?, ?)"
PUT_TIMER = """
    INSERT INTO jobs (run_id, target, kind, due, rank) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (run_id, target, kind) DO UPDATE SET due = excluded.due, rank = excluded.rank, taken = 0
"""
DELETE_TIMER = "DELETE FROM jobs WHERE run_id = ? AND target = ? AND kind = ?"
TIMERS_OF_KIND = "SELECT run_id, target FROM jobs WHERE kind = ?"

RUN_GATES = "SELECT gates, CASE status WHEN 'Scheduled' THEN throttle END FROM runs WHERE run_id = ?"
RUN_NOT_BEGUN = """
    UPDATE runs SET status = 'Scheduled' WHERE run_id = ? AND status = 'Running' AND throttle IS NOT NULL
    RETURNING throttle
"""
TAKE_PLACE = "INSERT INTO places (gate, run_id) VALUES (?, ?) ON CONFLICT DO NOTHING"
OTHERS_PLACES = """
    SELECT count(*) FROM places
    WHERE gate = ?1 AND NOT EXISTS (SELECT 1 FROM places WHERE gate = ?1 AND run_id = ?2)
"""
LEAVE_PLACES = "DELETE FROM places WHERE run_id = ?"
PARKED_THROTTLES = """
    SELECT throttle FROM (
        SELECT min(id) AS id FROM jobs WHERE gate >= 'throttle/' AND gate < 'throttle0' GROUP BY gate
    ) JOIN jobs USING (id) JOIN runs USING (run_id)
"""
PARKED_GATES = """
    SELECT gate, gates FROM (
        SELECT gate, min(id) AS id FROM jobs
        WHERE gate IS NOT NULL AND NOT (gate >= 'throttle/' AND gate < 'throttle0') GROUP BY gate
    ) JOIN jobs USING (id, gate) JOIN runs USING (run_id)
"""
PARK_JOB = "UPDATE jobs SET taken = 2, gate = ? WHERE id = ?"
IS_WAITED_AT = "SELECT 1 FROM jobs WHERE gate = ? LIMIT 1"
UNPARK_JOBS = """
    UPDATE jobs SET taken = 0, gate = NULL, due = max(due, ?3)
    WHERE id IN (SELECT id FROM jobs WHERE gate = ?1 ORDER BY rank, id LIMIT ?2)
"""
