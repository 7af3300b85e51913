"""What a storm counts, and how it is printed."""

from __future__ import annotations

from dataclasses import dataclass, field

COLUMNS = ("tried", "unchanged", "refused", "silent", "tracebacks", "hangs")


@dataclass
class Counts:
    """Outcomes by what was stormed.

    Attributes:
        rows: numbers by name and column.
        faults: a description of every outcome that must not be.
    """

    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, name: str, outcome: str, fault: str = "") -> None:
        """Count an outcome, one of ``COLUMNS`` but the first; say what it was if it must not be."""
        row = self.rows.setdefault(name, dict.fromkeys(COLUMNS, 0))
        row["tried"] += 1
        row[outcome] += 1
        if outcome in ("silent", "tracebacks", "hangs"):
            self.faults.append(f"{name}: {outcome}: {fault}")

    def total(self, column: str) -> int:
        """Return a column's sum."""
        return sum(row[column] for row in self.rows.values())

    def table(self) -> str:
        """Return a Markdown table with a row per name, and the sums."""
        rows = [(name, *(f"{row[column]:,}" for column in COLUMNS)) for name, row in self.rows.items()]
        rows.append(("together", *(f"{self.total(column):,}" for column in COLUMNS)))
        lines = [("", *COLUMNS), ("---", *["---:"] * len(COLUMNS)), *rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
