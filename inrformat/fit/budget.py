"""How long something is fitted: so many steps, so many seconds."""

from __future__ import annotations

import math
import time

from ..errors import UsageError


class Budget:
    """Steps, and seconds from here on; what is used up first ends it."""

    def __init__(self, steps: float = math.inf, seconds: float = math.inf) -> None:
        self.steps, self.seconds, self.began = steps, seconds, time.monotonic()

    def used(self, step: int) -> float:
        """Its share after so many steps, 1 at the most."""
        return min(1.0, max(step / self.steps, (time.monotonic() - self.began) / self.seconds))


def one_of(steps: int | None, seconds: float | None) -> Budget:
    """The budget of which one is given; UsageError unless it is more than nothing, and ends."""
    if (steps is None) == (seconds is None):
        raise UsageError("give the budget as steps or as seconds, one of them")
    for whole, unit in ((steps, "steps"), (seconds, "seconds")):
        if whole is not None and not 0 < whole < math.inf:
            raise UsageError(f"a budget is more than 0 {unit}, and ends; not {whole}")
    return Budget(steps or math.inf, seconds or math.inf)
