"""Waiting for a fact instead of sleeping for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class TimedOut(AssertionError):
    """What was waited for did not come; the message says what and for how long."""


def wait_for(condition: Callable[[], T], timeout: float, what: str, every: float = 0.1) -> T:
    """Calls `condition` until it returns something true, and returns that.

    A failed assertion within counts as "not yet"; the last one is part of the
    message when time is up. Other exceptions are mistakes and pass through.
    """
    end = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            last = condition()
            if last:
                return last
        except AssertionError as error:
            last = error
        if time.monotonic() > end:
            raise TimedOut(f"not within {timeout:.0f} s: {what} (last: {last})")
        time.sleep(every)


def stays(condition: Callable[[], object], seconds: float, what: str, every: float = 0.1) -> None:
    """The opposite promise: `condition` holds now and for the given time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), f"no longer true: {what}"
        time.sleep(every)
