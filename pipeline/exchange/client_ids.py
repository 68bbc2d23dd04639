"""Client ids: which order of an account a client means by its own word for it.

The kernels know orders by number; strings stay here. A word is taken while its order is open; after that the order is
still found by it, until another takes the word or the order's row is used again.
"""

from __future__ import annotations

import random
import string

_LETTERS = string.ascii_letters + string.digits
LENGTH = 22
"""Of the ids that the engine makes where a client sends none."""


class ClientIds:
    """The client ids of all orders that are kept, by row and by (account, symbol, word)."""

    def __init__(self, rows: int, seed: int) -> None:
        self._words: list[str] = [""] * rows
        self._keys: list[tuple[int, int, str] | None] = [None] * rows
        self._ids: list[int] = [0] * rows
        self._orders: dict[tuple[int, int, str], int] = {}
        self._random = random.Random(seed)

    def make(self) -> str:
        """Make an id for a client that sent none."""
        return "".join(self._random.choices(_LETTERS, k=LENGTH))

    def of(self, row: int) -> str:
        """Tell the word for the order in a row."""
        return self._words[row]

    def find(self, account: int, symbol: int, word: str) -> int | None:
        """Find the order id that an account means by a word in a symbol; None if it never said it."""
        return self._orders.get((account, symbol, word))

    def give(self, row: int, order_id: int, account: int, symbol: int, word: str) -> None:
        """Give the order in a row its word, in place of the one it had, or the order before it in that row."""
        old = self._keys[row]
        if old is not None and self._orders.get(old) == self._ids[row]:
            del self._orders[old]
        key = (account, symbol, word)
        self._words[row], self._keys[row], self._ids[row] = word, key, order_id
        self._orders[key] = order_id
