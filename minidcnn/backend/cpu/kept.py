"""What was made of weights, such as their Winograd transforms, kept while somebody says that they hardly change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ..arrays import Array
from ..reference.conv import Versioned


class _Entry(NamedTuple):
    array: Array  # held, so that no other array takes its id
    owner: Versioned
    made: dict[Hashable, tuple[int, Array]]  # by what it is: the version that it was made of, and itself


class Kept:
    """Arrays made of other arrays, each kept for one version of its source."""

    def __init__(self) -> None:
        self.blocks: list[dict[int, _Entry]] = []
        self._lock = threading.Lock()  # of the list: what one thread leaves, another must not put back

    @contextmanager
    def constant(self, weights: Iterable[tuple[Array, Versioned]]) -> Iterator[None]:
        """Within a `with` block, keep what is made of these arrays. Blocks may nest, and run in several threads."""
        block = {id(array): _Entry(array, owner, {}) for array, owner in weights}
        with self._lock:
            self.blocks = [*self.blocks, block]
        try:
            yield
        finally:
            with self._lock:
                self.blocks = [other for other in self.blocks if other is not block]

    def of(self, source: Array, what: Hashable, make: Callable[[], Array]) -> Array | None:
        """make() or what it returned before, of the same version of `source`; None if nothing is kept of that array."""
        for block in self.blocks:
            entry = block.get(id(source))
            if entry is None:
                continue
            now = entry.owner.version
            before = entry.made.get(what)
            if before is not None and before[0] == now:
                return before[1]
            made = make()
            entry.made[what] = now, made
            return made
        return None
