"""How long a model is trained: so many steps, or so many seconds."""

from __future__ import annotations

import math
import time

from ..errors import UsageError


class Budget:
    """One of the two; UsageError unless it is more than nothing, and ends. Seconds count from here on."""

    def __init__(self, steps: int | None = None, seconds: float | None = None) -> None:
        if (steps is None) == (seconds is None):
            raise UsageError("give the budget as steps or as seconds, one of them")
        self.steps, self.seconds, self.began = steps, seconds or 0.0, time.monotonic()
        whole, unit = (self.seconds, "seconds") if steps is None else (steps, "steps")
        if not 0 < whole < math.inf:
            raise UsageError(f"a budget is more than 0 {unit}, and ends; not {whole}")

    def used(self, step: int) -> float:
        """Its share after so many steps, 1 at the most."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        return min(1.0, (time.monotonic() - self.began) / self.seconds)
