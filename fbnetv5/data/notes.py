"""What was repaired or left out when a data set was opened, counted by kind: the user reads it in one line."""

from collections import Counter


class Notes:
    """Counts of repairs and omissions by their description, in the order of their first occurrence."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, count: int = 1) -> None:
        """Count ``count`` more of a kind, such as "repeated boxes removed"; 0 changes nothing."""
        if count:
            self._counts[kind] += count

    def lines(self) -> tuple[str, ...]:
        """A text for each kind, such as "repeated boxes removed: 3"."""
        return tuple(f"{kind}: {count}" for kind, count in self._counts.items())
