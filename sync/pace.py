"""Long work makes room for other work now and then. How, the process says that does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

# So many small steps take some milliseconds.
STEPS_AT_ONCE = 4_096


class Pace:
    """`give_way` is called between steps: nothing, unless the process sets it."""

    def __init__(self) -> None:
        self.give_way: Callable[[], None] = lambda: None

    def range(self, count: int) -> Iterator[int]:
        """As Python's, for what may be long."""
        for number in range(count):
            if number % STEPS_AT_ONCE == STEPS_AT_ONCE - 1:
                self.give_way()
            yield number


pace = Pace()
"""Of this process."""
