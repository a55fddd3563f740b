"""Which rows of a matrix are near one another, exactly: by the cosine, or by the bits in which they differ."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]
Pairs = tuple[Rows, Rows]
Span = tuple[NDArray[np.int32], NDArray[np.int32]]
FEW_ROWS = 1024
"""Up to this many rows are compared with all others."""
BLOCK_PAIRS = 1 << 22
"""Pairs compared at a time."""
PROBING_ROWS = 1 << 15
"""Rows whose cells are held at a time."""
COSINE_ROUNDING = 1e-9
"""Tolerance below the threshold: the cosine of equal directions is 1 up to rounding."""
NUM_CELLS = 1024
FEW_CELL_ROWS = 16 * FEW_ROWS
"""Up to this many rows are compared without cells."""
_MOST_KEY_BITS = 22


class Cosine:
    """Rows whose cosine reaches a threshold.

    On the unit sphere they are at most `reach` apart. A row whose nearest center is c has no near row in the cell of
    center e if it is farther than `reach` from the plane between c and e.
    """

    def __init__(self, latent_MZ: NDArray[np.float32], threshold: float) -> None:
        exact = latent_MZ.astype(np.float64)
        # In two steps, because the square of a tiny latent would be zero.
        exact /= np.abs(exact).max(axis=1, keepdims=True, initial=0)
        exact /= np.linalg.norm(exact, axis=1, keepdims=True)
        self.exact_MZ, self.unit_MZ = exact, exact.astype(np.float32)
        self.cut = threshold - COSINE_ROUNDING
        # A bound on the rounding error of float32.
        self.margin = (latent_MZ.shape[1] + 8) * 2.0**-23
        self.reach = (2 - 2 * self.cut) ** 0.5 + self.margin
        count = min(NUM_CELLS, max(1, len(exact) // 64))
        self.center_CZ = self.unit_MZ[np.linspace(0, max(0, len(exact) - 1), count).astype(np.intp)[: len(exact)]]
        self.apart_CC = np.sqrt(np.maximum(0, 2 - 2 * self.center_CZ @ self.center_CZ.T) + 4 * self.margin)
        self.cell_M = np.empty(len(exact), np.intp)
        for begin in range(0, len(exact), FEW_ROWS):
            part = slice(begin, begin + FEW_ROWS)
            self.cell_M[part] = (self.unit_MZ[part] @ self.center_CZ.T).argmax(axis=1)

    def pairs(self, rows: Rows, kept: Rows) -> Iterator[Pairs]:
        """The rows and the kept ones that are near, in parts. A pair may come more than once."""
        if len(kept) <= FEW_CELL_ROWS:
            yield from _blocks(self.compare, rows, kept)
            return
        kept = kept[np.argsort(self.cell_M[kept], kind="stable")]
        cells = np.arange(len(self.center_CZ) + 1)
        kept_at = np.searchsorted(self.cell_M[kept], cells)
        rows = rows[np.argsort(self.cell_M[rows], kind="stable")]
        for begin in range(0, len(rows), PROBING_ROWS):
            part = rows[begin : begin + PROBING_ROWS]
            position_P, cell_P = self._probes(part)
            by_cell = np.argsort(cell_P, kind="stable")
            probes_at = np.searchsorted(cell_P[by_cell], cells)
            for cell in np.flatnonzero(np.diff(probes_at) * np.diff(kept_at)):
                probing = part[position_P[by_cell[probes_at[cell] : probes_at[cell + 1]]]]
                yield from _blocks(self.compare, probing, kept[kept_at[cell] : kept_at[cell + 1]])

    def _probes(self, rows: Rows) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
        """Positions of rows and the cells with which each must be compared."""
        positions, cells = [], []
        for begin in range(0, len(rows), FEW_ROWS):
            part = rows[begin : begin + FEW_ROWS]
            own = self.cell_M[part]
            dot_RC = self.unit_MZ[part] @ self.center_CZ.T
            own_R1 = np.take_along_axis(dot_RC, own[:, None], axis=1)
            position, cell = np.nonzero(dot_RC >= own_R1 - self.reach * self.apart_CC[own] - 4 * self.margin)
            positions.append((begin + position).astype(np.int32))
            cells.append(cell.astype(np.int16))
        return np.concatenate(positions), np.concatenate(cells)

    def compare(self, rows: Rows, kept: Rows) -> Pairs:
        """Positions of all near pairs; float64 decides where float32 is in doubt."""
        dot_RK = self.unit_MZ[rows] @ self.unit_MZ[kept].T
        flat = np.flatnonzero(dot_RK >= self.cut - self.margin)
        is_near = dot_RK.reshape(-1)[flat] >= self.cut + self.margin
        doubtful = np.flatnonzero(~is_near)
        for begin in range(0, len(doubtful), BLOCK_PAIRS // 16):
            part = doubtful[begin : begin + BLOCK_PAIRS // 16]
            row, by = np.divmod(flat[part], len(kept))
            cosine = np.einsum("pz,pz->p", self.exact_MZ[rows[row]], self.exact_MZ[kept[by]])
            is_near[part] = cosine >= self.cut
        row, by = np.divmod(flat[is_near], len(kept))
        return row, by


class Hamming:
    """Rows that differ in few bits, as they are or mirrored.

    A key is made of some bits of a part. The keys of near rows differ in at most one bit in at least one part.
    """

    def __init__(self, hash_MB: NDArray[np.uint8], max_distance: int, mirror_mask: NDArray[np.uint8]) -> None:
        self.hash_MB, self.max_distance = hash_MB, max_distance
        self.is_flipped = np.unpackbits(mirror_mask).astype(np.bool_)
        self.words_MW = np.ascontiguousarray(hash_MB).view(np.uint64)
        self.flip_TW = np.stack([np.zeros_like(mirror_mask), mirror_mask]).view(np.uint64)
        num_parts = max_distance // 2 + 1
        # Parts take bits in turn: neighbours in a hash are correlated, and the bits of a key should not be.
        self.parts = [np.arange(8 * len(mirror_mask))[n::num_parts][:_MOST_KEY_BITS] for n in range(num_parts)]
        self.key_PM, self.key_flip_P = self._keys(hash_MB), self._keys(mirror_mask[None])[:, 0]

    def _keys(self, hash_MB: NDArray[np.uint8]) -> NDArray[np.uint32]:
        key_PM = np.zeros((len(self.parts), len(hash_MB)), np.uint32)
        for begin in range(0, len(hash_MB), PROBING_ROWS):
            bits = np.unpackbits(hash_MB[begin : begin + PROBING_ROWS], axis=1)
            for number, part in enumerate(self.parts):
                key_PM[number, begin : begin + len(bits)] = bits[:, part] @ (1 << np.arange(len(part), dtype=np.uint32))
        return key_PM

    def pairs(self, rows: Rows, kept: Rows) -> Iterator[Pairs]:
        """The rows and the kept ones that are near, in parts. A pair may come more than once."""
        if len(kept) <= FEW_ROWS:
            yield from _blocks(self.compare, rows, kept)
            return
        for keys_M, flip, part in zip(self.key_PM, self.key_flip_P, self.parts, strict=True):
            # With more bits nearly all keys would have no row.
            num_bits = min(len(part), len(kept).bit_length() + 3)
            mask = np.uint32((1 << num_bits) - 1)
            kept_key, row_key = keys_M[kept] & mask, keys_M[rows] & mask
            starts = np.zeros((1 << num_bits) + 1, np.int32)
            np.cumsum(np.bincount(kept_key, minlength=1 << num_bits), out=starts[1:])
            # Most keys have no row. This table is a quarter as large and stays in the cache.
            is_some = np.diff(starts) > 0
            by_key = kept[np.argsort(kept_key, kind="stable")]
            # Sorted by key, rows look up adjacent places.
            order = np.argsort(row_key)
            sorted_rows, sorted_key = rows[order], row_key[order]
            for flip_W, key_flip in zip(self.flip_TW, (np.uint32(0), flip & mask), strict=True):
                for changed in (0, *(1 << bit for bit in range(num_bits))):
                    key = sorted_key ^ (key_flip ^ np.uint32(changed))
                    some = np.flatnonzero(is_some[key])
                    key = key[some]
                    yield from self._verified(sorted_rows[some], by_key, (starts[key], starts[key + 1]), flip_W)

    def _verified(self, rows: Rows, by_key: Rows, span: Span, flip_W: NDArray[np.uint64]) -> Iterator[Pairs]:
        """The near pairs, with these bits flipped, of each row and the span of `by_key` that has its key."""
        begin, count = span[0], span[1] - span[0]
        ends = np.cumsum(count, dtype=np.int64)
        done = 0
        while done < len(rows):
            before = int(ends[done - 1]) if done else 0
            # At least one row, however long its span.
            until = max(done + 1, int(np.searchsorted(ends, before + BLOCK_PAIRS // 4, side="right")))
            part, length = slice(done, until), count[done:until]
            offset = np.arange(int(ends[until - 1]) - before) - np.repeat(ends[part] - length - before, length)
            found, by = np.repeat(rows[part], length), by_key[np.repeat(begin[part], length) + offset]
            distance = np.bitwise_count(self.words_MW[found] ^ self.words_MW[by] ^ flip_W).sum(axis=1, dtype=np.uint16)
            near = np.flatnonzero(distance <= self.max_distance)
            yield found[near], by[near]
            done = until

    def compare(self, rows: Rows, kept: Rows) -> Pairs:
        """Positions of all near pairs: bits as -1 and 1, whose products are sums of small integers, and so exact."""
        row_RF, kept_KF = (np.unpackbits(self.hash_MB[some], axis=1) * np.float32(2) - 1 for some in (rows, kept))
        flipped, as_is = self.is_flipped, ~self.is_flipped
        agreement_RK = np.abs(row_RF[:, flipped] @ kept_KF[:, flipped].T)
        agreement_RK += row_RF[:, as_is] @ kept_KF[:, as_is].T
        return np.divmod(np.flatnonzero(agreement_RK >= len(flipped) - 2 * self.max_distance), len(kept))


def _blocks(compare: Callable[[Rows, Rows], Pairs], rows: Rows, kept: Rows) -> Iterator[Pairs]:
    """All near pairs, compared in blocks."""
    step = max(1, BLOCK_PAIRS // max(1, len(kept)))
    for begin in range(0, len(rows) if len(kept) else 0, step):
        part = rows[begin : begin + step]
        found, by = compare(part, kept)
        yield part[found], kept[by]
