"""The lowest of pieces that are added one by one, in bounded memory."""

from collections.abc import Callable, Sized
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.selection.order import Ranking

Piece = TypeVar("Piece", bound=Sized)


class Lowest(Generic[Piece]):
    """The `size` lowest of pieces that are added one by one, in the memory of twice as many and a piece.

    `reduce(pieces, size)` joins pieces and keeps the `size` lowest, in no order.
    """

    def __init__(self, size: int, reduce: Callable[[list[Piece], int], Piece]) -> None:
        self._size, self._reduce, self._num_held = size, reduce, 0
        self._pieces: list[Piece] = []

    def add(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._num_held += len(piece)
        # Reducing at twice the size keeps the total time linear.
        if self._num_held >= 2 * self._size:
            self._pieces = [self.result()]
            self._num_held = len(self._pieces[0])

    def result(self) -> Piece:
        """The lowest, in no order. Raises ValueError when no piece, not even an empty one, was added."""
        return self._reduce(self._pieces, self._size)


class LowestPlaces(Lowest[NDArray[Any]]):
    """Places of a ranking; those above `cut` are not among the lowest."""

    def __init__(self, size: int, ranking: Ranking) -> None:
        super().__init__(size, _lowest_values)
        self.cut, self._lowest = ranking.highest, ranking.lowest

    def add(self, piece: NDArray[Any]) -> None:
        super().add(piece)
        if self._pieces[0] is not piece and len(self._pieces) == 1:
            self.cut = self._pieces[0].max(initial=self._lowest)


def _lowest_values(pieces: list[NDArray[Any]], size: int) -> NDArray[Any]:
    held: NDArray[Any] = np.concatenate(pieces)
    return np.partition(held, size)[:size] if size < len(held) else held
