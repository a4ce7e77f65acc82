"""Cron schedules: the only file that knows the cron library."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError


class InvalidCronError(ValueError):
    """The text is no cron schedule."""


def next_time(text: str, *, after: int) -> int:
    """Epoch milliseconds of the schedule's next time; `TZ=Europe/Paris 0 9 * * *` is in that zone.

    A time that the clock leaves out in spring is the moment after; of one that it shows twice, the first.
    `?` means any, as `*` does.
    """
    zone, expression = _parts(text)
    moment = datetime.fromtimestamp(after / 1000, UTC).astimezone(zone)
    try:
        schedule = CronSim(expression.replace("?", "*"), moment)
        return round(next(schedule).timestamp() * 1000)
    except (CronSimError, StopIteration) as err:
        raise InvalidCronError(f"{text!r} is no cron schedule such as '0 9 * * *'") from err


def _parts(text: str) -> tuple[ZoneInfo, str]:
    name, expression = "UTC", text.strip()
    if expression.startswith(("TZ=", "CRON_TZ=")):
        head, _, expression = expression.partition(" ")
        name = head.partition("=")[2]
    try:
        return ZoneInfo(name), expression
    except (ZoneInfoNotFoundError, ValueError) as err:
        raise InvalidCronError(f"{name!r} in {text!r} is no time zone") from err
