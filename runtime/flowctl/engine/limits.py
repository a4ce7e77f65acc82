"""How large a run may grow and what a registration may ask for, as the real service limits it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flowctl.engine.expressions import compiled
from flowctl.engine.flow_control import DAY_MS, RUN_SCOPE, Batch, FlowControl
from flowctl.engine.protocol import duration_ms

MAX_STEPS = 1_000
MAX_STEP_BYTES = 4 * 2**20
MAX_STATE_BYTES = 32 * 2**20
MAX_JITTER_MS = 300_000
MAX_WAIT_MS = 366 * DAY_MS
MAX_TRIGGERS, MAX_CANCELS, MAX_CONCURRENCY = 10, 5, 2
MIN_DEBOUNCE_MS, MAX_DEBOUNCE_MS = 1_000, 7 * DAY_MS
MIN_BATCH_SIZE, MIN_BATCH_TIMEOUT_MS = 2, 1_000
NOT_BATCHED = ("cancel", "debounce", "singleton", "priority")


def overflow(*, steps: int, size: int) -> dict[str, Any] | None:
    """The error of a run that has used up its steps or its state (bytes), None while it has not."""
    if steps >= MAX_STEPS:
        message = f"The function run exceeded the step limit of {MAX_STEPS} steps."
        return _error("InngestErrFunctionOverflowed", "function has too many steps", message)
    if size > MAX_STATE_BYTES:
        message = f"The function run exceeded the state size limit of {MAX_STATE_BYTES} bytes."
        return _error("InngestErrStateOverflowed", "state is too large", message)
    return None


def step_overflow(name: str) -> dict[str, Any]:
    """The error of a run with a step whose output is larger than `MAX_STEP_BYTES`."""
    message = f"The output of step {name!r} exceeds the limit of {MAX_STEP_BYTES} bytes."
    return _error("InngestErrStepOutputTooLarge", "step output size is greater than the limit", message)


def too_long(what: str, text: str) -> dict[str, Any]:
    """The error of a run whose step would sleep or wait for more than `MAX_WAIT_MS`."""
    message = f"The {what} {text!r} ends more than one year in the future; one year is the most."
    return _error("InngestErrTimeoutTooLong", "timeout exceeds the maximum duration", message)


def invalid_condition(reason: str) -> dict[str, Any]:
    """The error of a run that waits with a condition that is none."""
    message = "Wait for event If expression failed to compile"
    return _error("InvalidExpression", reason, message)


def signal_conflict() -> dict[str, Any]:
    """The error of a run that waits for a signal for which another run waits already."""
    message = "Signal conflict; signal wait already exists for another run"
    return _error("Error", "signal conflict", message)


def check_registration(raw: Mapping[str, Any], rules: FlowControl) -> None:
    """Raise ValueError for a function that the real service would refuse: too many rules, or out of range."""
    _check_triggers(raw.get("triggers") or ())
    _check_count(len(raw.get("cancel") or ()), MAX_CANCELS, "events that cancel it")
    of_runs = sum(rule.scope == RUN_SCOPE for rule in rules.concurrency)
    _check_count(len(rules.concurrency) - of_runs, MAX_CONCURRENCY, "concurrency limits")
    _check_count(of_runs, 1, "concurrency limits of runs")
    if rules.debounce and not MIN_DEBOUNCE_MS <= rules.debounce.period <= MAX_DEBOUNCE_MS:
        period = raw["debounce"]["period"]
        raise ValueError(f"its debounce period is {period!r}; choose one from '1s' to '7d'")
    if rules.rate_limit and rules.rate_limit.period > DAY_MS:
        period = raw["rateLimit"]["period"]
        raise ValueError(f"its rate limit's period is {period!r}; choose one of '24h' at most")
    if rules.batch:
        _check_batch(raw, rules.batch)
    for expression in filter(None, _expressions(raw, rules)):
        compiled(expression)


def _check_triggers(triggers: Sequence[Mapping[str, Any]]) -> None:
    _check_count(len(triggers), MAX_TRIGGERS, "triggers")
    seen: set[tuple[str, str]] = set()
    for trigger in triggers:
        event, cron = trigger.get("event") or "", trigger.get("cron") or ""
        if bool(event) == bool(cron):
            raise ValueError("it has a trigger with neither an event nor a cron schedule, or with both")
        what = (event or cron, trigger.get("expression") or "")
        if what in seen:
            raise ValueError(f"it has the trigger {what[0]!r} twice; take one away")
        seen.add(what)
        if (jitter := trigger.get("jitter")) and not 1_000 <= duration_ms(str(jitter)) <= MAX_JITTER_MS:
            raise ValueError(f"its schedule's jitter is {jitter!r}; choose one from '1s' to '5m'")


def _expressions(raw: Mapping[str, Any], rules: FlowControl) -> Iterator[str | None]:
    yield from (trigger.get("expression") for trigger in raw.get("triggers") or ())
    yield from (cancel.get("if") for cancel in raw.get("cancel") or ())
    keyed = (rules.throttle, rules.rate_limit, rules.debounce, rules.batch, rules.singleton)
    yield from (rule.key for rule in (*rules.concurrency, *keyed) if rule)
    yield rules.batch.condition if rules.batch else None
    yield rules.priority


def _check_count(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise ValueError(f"it has {count} {what}; {limit} is the most")


def _check_batch(raw: Mapping[str, Any], batch: Batch) -> None:
    if batch.size < MIN_BATCH_SIZE:
        raise ValueError(f"its batches hold {batch.size} event; choose a maxSize of {MIN_BATCH_SIZE} or more")
    if batch.timeout < MIN_BATCH_TIMEOUT_MS:
        raise ValueError(f"its batch timeout is {raw['batchEvents']['timeout']!r}; choose '1s' or more")
    if others := [name for name in NOT_BATCHED if raw.get(name)]:
        raise ValueError(f"it has batchEvents together with {', '.join(others)}; choose one of them")


def _error(name: str, error: str, message: str) -> dict[str, Any]:
    return {"error": error, "name": name, "message": message}
