"""The SQL of the REST API and of GraphQL, by name; its tables are among the migrations of `statements`."""

from __future__ import annotations

from flowctl.engine.statements import RUN

_EVENTS = """
    SELECT internal_id, body, received_at, copies FROM events
    WHERE internal_id < :cursor AND received_at >= :after AND received_at <= :before AND {}
    ORDER BY internal_id DESC LIMIT :limit
"""
EVENTS = _EVENTS.format("name NOT LIKE 'inngest/%'")
ALL_EVENTS = _EVENTS.format("TRUE")
EVENTS_NAMED = _EVENTS.format("name = :name")
FIRST_EVENT_BY_ID = """
    SELECT internal_id FROM events WHERE id = ? AND received_at > ? ORDER BY internal_id LIMIT 1
"""

RUNS = """
    SELECT run_id, slug, function_id, event_id, status, started_at, ended_at FROM runs
    WHERE run_id < :cursor AND started_at >= :after AND started_at <= :before
        AND (:status IS NULL OR lower(status) = lower(:status)) AND (:slug IS NULL OR slug = :slug)
    ORDER BY run_id DESC LIMIT :limit
"""
RUNS_WHERE = """
    WHERE {0} >= :from AND {0} <= :until
        AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
        AND (:functions IS NULL OR function_id IN (SELECT value FROM json_each(:functions)))
        AND (:slugs IS NULL OR slug IN (SELECT value FROM json_each(:slugs)))
"""
RUNS_PAGE = (
    RUN
    + """{0}
        AND (:at IS NULL OR (coalesce({1}, 1 << 62), run_id) {2} (:at, :id))
    ORDER BY coalesce({1}, 1 << 62) {3}, run_id {3} LIMIT :limit
"""
)
COUNT_RUNS = "SELECT count(*) FROM runs"
EVENTS_WHERE = """
    FROM events
    WHERE received_at >= :from AND received_at <= :until AND (:internal OR name NOT LIKE 'inngest/%')
        AND (:names IS NULL OR name IN (SELECT value FROM json_each(:names)))
"""
EVENTS_PAGE = """
    SELECT internal_id, body, received_at {0}
        AND internal_id < :cursor ORDER BY internal_id DESC LIMIT :limit
"""
COUNT_EVENTS = "SELECT count(*) "
RUN_JOBS = "SELECT id, target, kind, due, attempt, taken FROM jobs WHERE run_id = ? ORDER BY due, id"

PUT_CANCELLATION = "INSERT INTO cancellations (id, body) VALUES (?, ?)"
ALL_CANCELLATIONS = "SELECT body FROM cancellations ORDER BY id DESC"
DELETE_CANCELLATION = "DELETE FROM cancellations WHERE id = ?"

APPS = "SELECT name, body, synced_at FROM apps ORDER BY name"
DELETE_APP = "DELETE FROM apps WHERE name = ?"

QUEUE_DEPTH = """
    SELECT (SELECT count(*) FROM jobs INDEXED BY jobs_due WHERE taken = 0 AND due <= :now),
        (SELECT count(*) FROM jobs INDEXED BY jobs_due WHERE taken = 0 AND due > :now),
        (SELECT count(*) FROM jobs INDEXED BY jobs_parked WHERE gate IS NOT NULL),
        (SELECT count(*) FROM jobs)
"""
COUNT_OPEN_RUNS = """
    SELECT slug, status, count(*) FROM runs INDEXED BY runs_open WHERE ended_at IS NULL GROUP BY slug, status
"""
