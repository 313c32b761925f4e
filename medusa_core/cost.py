"""What a decoding step costs on a machine, by the number of rows: used to choose trees."""

from __future__ import annotations

from dataclasses import dataclass

ROWS = (*range(1, 17), 20, 24, 32, 40, 48, 64)


@dataclass(frozen=True)
class StepCost:
    """step_seconds[n - 1]: one step of n rows, from the tree's mask to the accepted path; draft_seconds: one draft."""

    step_seconds: tuple[float, ...]
    draft_seconds: float = 0.0

    @property
    def rows(self) -> int:
        """The largest number of rows whose cost is known."""
        return len(self.step_seconds)

    def overhead(self, rows: int, drafted: bool = True) -> float:
        """Seconds of a step of `rows` rows, with its draft where `drafted`, over those of plain decoding."""
        return (self.step_seconds[rows - 1] + drafted * self.draft_seconds) / self.step_seconds[0]
