"""PyTorch's caching allocator, followed without a graphics card: what it holds besides what is asked of it.

It asks the driver for segments and cuts them into blocks. A freed block waits for the next one who asks; what lies free
between blocks in use is lost to all that is larger. Rules: `CUDACachingAllocator` of PyTorch 2.3 to 2.11, as it is set
when nobody sets it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

_GRAIN = 512
_MIB = 2**20
# Small blocks have segments of their own kind.
_SMALL, _SMALL_SEGMENT = _MIB, 2 * _MIB
# What is smaller than this shares segments of a fixed size; the segments of larger ones are multiples of another.
_LARGE, _LARGE_SEGMENT, _LARGE_STEP = 10 * _MIB, 20 * _MIB, 2 * _MIB


class AllocatorFull(MemoryError):
    """The limit is reached, and no segment is free as a whole."""


@dataclass(eq=False)
class Block:
    """A piece of a segment, with its neighbours there. Its place tells blocks of one size apart."""

    small: bool
    size: int
    place: tuple[int, int]
    before: Block | None = None
    after: Block | None = None
    free: bool = False

    @property
    def key(self) -> tuple[int, tuple[int, int]]:
        return self.size, self.place

    @property
    def is_segment(self) -> bool:
        return self.before is None and self.after is None


@dataclass
class CachingAllocator:
    """One device's allocator.

    Attributes:
        limit_bytes: the most that it may hold; None for all there is.
        held_bytes, peak_bytes: of its segments, now and at most.
        retries: how often free segments had to be given back before there was room.
    """

    limit_bytes: int | None = None
    held_bytes: int = 0
    peak_bytes: int = 0
    retries: int = 0
    _segments: int = 0
    _free: dict[bool, list[tuple[int, tuple[int, int], Block]]] = field(
        default_factory=lambda: {True: [], False: []}, repr=False
    )

    def allocate(self, size_bytes: int) -> Block:
        """A block of at least that size, the smallest free one that holds it. Raises AllocatorFull."""
        size = max(_GRAIN, -(-size_bytes // _GRAIN) * _GRAIN)
        small = size <= _SMALL
        waiting = self._free[small]
        found = bisect_left(waiting, (size,))
        block = waiting.pop(found)[2] if found < len(waiting) else self._new_segment(size, small)
        block.free = False
        rest = block.size - size
        if rest >= _GRAIN if small else rest > _SMALL:
            segment, start = block.place
            other = Block(small, rest, (segment, start + size), block, block.after, free=True)
            if block.after:
                block.after.before = other
            block.after, block.size = other, size
            insort(waiting, (*other.key, other))
        return block

    def free(self, block: Block) -> None:
        """The block waits for the next one who asks, as one with free neighbours."""
        if block.before and block.before.free:
            self._take(block.before)
            block.place, block.size = block.before.place, block.before.size + block.size
            block.before = block.before.before
            if block.before:
                block.before.after = block
        if block.after and block.after.free:
            self._take(block.after)
            block.size += block.after.size
            block.after = block.after.after
            if block.after:
                block.after.before = block
        block.free = True
        insort(self._free[block.small], (*block.key, block))

    def _new_segment(self, size: int, small: bool) -> Block:
        shared = _SMALL_SEGMENT if small else _LARGE_SEGMENT
        wanted = shared if size < _LARGE else -(-size // _LARGE_STEP) * _LARGE_STEP
        if not self._has_room(wanted):
            self.retries += 1
            self._give_back()
            if not self._has_room(wanted):
                raise AllocatorFull(f"{wanted / _MIB:.0f} MiB beside {self.held_bytes / _MIB:.0f} MiB")
        self.held_bytes += wanted
        self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        self._segments += 1
        return Block(small, wanted, (self._segments, 0))

    def _has_room(self, wanted: int) -> bool:
        return self.limit_bytes is None or self.held_bytes + wanted <= self.limit_bytes

    def _give_back(self) -> None:
        """Every segment that is free as a whole."""
        for waiting in self._free.values():
            self.held_bytes -= sum(block.size for *_, block in waiting if block.is_segment)
            waiting[:] = [entry for entry in waiting if not entry[2].is_segment]

    def _take(self, block: Block) -> None:
        waiting = self._free[block.small]
        del waiting[bisect_left(waiting, block.key)]
