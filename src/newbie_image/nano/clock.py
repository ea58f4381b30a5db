"""The time that a training counts as its own."""

from __future__ import annotations

import time


class TrainingClock:
    """Minutes trained, from call to call of `tick`, once a step.

    A schedule that ends after a time would lose the time in which the process was stopped, the machine
    asleep or a step being compiled; so one step counts `longest` seconds at most.

    Args:
        minutes: what earlier calls have spent.
        longest: seconds.
    """

    def __init__(self, minutes: float = 0.0, longest: float = 10.0) -> None:
        self.minutes = minutes
        self.longest = longest
        self._last = time.monotonic()

    def tick(self) -> float:
        """Counts what passed since the last call; returns the minutes in all."""
        now = time.monotonic()
        self.minutes += min(now - self._last, self.longest) / 60
        self._last = now
        return self.minutes
