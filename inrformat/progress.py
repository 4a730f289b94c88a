"""A progress bar on stderr, for a terminal only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from .fit.train import FitProgress


class Bar:
    """Shows the stages of an encode. `shown` None: if stderr is a terminal."""

    def __init__(self, shown: bool | None) -> None:
        self._bar: Any = tqdm(
            total=1.0,
            disable=None if shown is None else not shown,
            bar_format="{desc:18} {percentage:3.0f}% |{bar:30}| {postfix}",
            leave=False,
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[FitProgress], None]]:
        """A named part of the work; call what it yields to move the bar."""
        self._bar.set_description_str(name, refresh=False)
        self._bar.set_postfix_str("", refresh=False)
        self.set(0.0)

        def report(at: FitProgress) -> None:
            self._bar.set_postfix_str(f"{at.psnr:.2f} dB, {at.seconds_left:.0f} s left", refresh=False)
            self.set(at.step / at.steps)

        yield report

    def set(self, part: float) -> None:
        """The share of the stage that is done."""
        self._bar.n = min(part, 1.0)
        self._bar.refresh()
