"""PyTorch's caching allocator, simulated without a GPU: what it holds beyond what is requested.

It takes segments from the driver and cuts them into blocks. A freed block waits for the next request; free space
between blocks in use is useless for anything larger. Rules: `CUDACachingAllocator` of PyTorch 2.3 to 2.11 with its
defaults.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

_GRAIN = 512
_MIB = 2**20
# kSmallSize and kSmallBuffer: small blocks have segments of their own.
_SMALL, _SMALL_SEGMENT = _MIB, 2 * _MIB
# kMinLargeAlloc, kLargeBuffer and kRoundLarge: requests below the first share segments of the second size; larger ones
# get a segment of their own, a multiple of the third.
_LARGE, _LARGE_SEGMENT, _LARGE_STEP = 10 * _MIB, 20 * _MIB, 2 * _MIB


class AllocatorFull(MemoryError):
    """The limit is reached, and no segment is entirely free."""


@dataclass(eq=False)
class Block:
    """A part of a segment, with its neighbours there. Its address tells blocks of one size apart."""

    small: bool
    size: int
    address: tuple[int, int]
    before: Block | None = None
    after: Block | None = None
    free: bool = False

    @property
    def key(self) -> tuple[int, tuple[int, int]]:
        return self.size, self.address

    @property
    def is_segment(self) -> bool:
        return self.before is None and self.after is None


@dataclass
class CachingAllocator:
    """One device's allocator.

    Attributes:
        limit_bytes: of its segments; None for no limit.
        held_bytes, peak_bytes: of its segments, now and at the peak.
        retries: how often it released free segments to stay below the limit.
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
        """The smallest free block of at least that size. Raises AllocatorFull."""
        size = max(_GRAIN, -(-size_bytes // _GRAIN) * _GRAIN)
        small = size <= _SMALL
        waiting = self._free[small]
        found = bisect_left(waiting, (size,))
        block = waiting.pop(found)[2] if found < len(waiting) else self._new_segment(size, small)
        block.free = False
        rest = block.size - size
        if rest >= _GRAIN if small else rest > _SMALL:
            segment, start = block.address
            other = Block(small, rest, (segment, start + size), block, block.after, free=True)
            if block.after:
                block.after.before = other
            block.after, block.size = other, size
            insort(waiting, (*other.key, other))
        return block

    def free(self, block: Block) -> None:
        """The block becomes free, merged with free neighbours."""
        if block.before and block.before.free:
            self._take(block.before)
            block.address, block.size = block.before.address, block.before.size + block.size
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
        if not self._fits(wanted):
            self.retries += 1
            self._release_segments()
            if not self._fits(wanted):
                raise AllocatorFull(f"{wanted / _MIB:.0f} MiB beside {self.held_bytes / _MIB:.0f} MiB")
        self.held_bytes += wanted
        self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        self._segments += 1
        return Block(small, wanted, (self._segments, 0))

    def _fits(self, wanted: int) -> bool:
        return self.limit_bytes is None or self.held_bytes + wanted <= self.limit_bytes

    def _release_segments(self) -> None:
        """Returns every entirely free segment to the driver."""
        for waiting in self._free.values():
            self.held_bytes -= sum(block.size for *_, block in waiting if block.is_segment)
            waiting[:] = [entry for entry in waiting if not entry[2].is_segment]

    def _take(self, block: Block) -> None:
        waiting = self._free[block.small]
        del waiting[bisect_left(waiting, block.key)]
