"""Words for orders: found, taken over, forgotten."""

from __future__ import annotations

from shrivenq.pipeline.exchange.client_ids import LENGTH, ClientIds
from shrivenq.pipeline.exchange.entry import CLIENT_ID


def test_words_belong_to_an_account_and_a_symbol():
    ids = ClientIds(4, 1)
    ids.give(0, 7, 1, 0, "a")
    assert ids.of(0) == "a"
    assert (ids.find(1, 0, "a"), ids.find(2, 0, "a"), ids.find(1, 1, "a"), ids.find(1, 0, "b")) == (7, None, None, None)


def test_a_word_means_the_last_order_that_had_it():
    ids = ClientIds(4, 1)
    ids.give(0, 7, 1, 0, "a")
    ids.give(1, 8, 1, 0, "a")
    assert ids.find(1, 0, "a") == 8
    # The row of the first is used again: that takes nothing from the second.
    ids.give(0, 9, 1, 0, "b")
    assert (ids.find(1, 0, "a"), ids.find(1, 0, "b")) == (8, 9)


def test_a_row_used_again_forgets_its_word():
    ids = ClientIds(4, 1)
    ids.give(0, 7, 1, 0, "a")
    ids.give(0, 9, 1, 0, "b")
    assert ids.find(1, 0, "a") is None


def test_made_words_are_of_the_venues_alphabet_and_follow_the_seed():
    made = [ClientIds(1, 5).make() for _ in range(2)]
    assert made[0] == made[1] != ClientIds(1, 6).make()
    assert len(made[0]) == LENGTH
    assert CLIENT_ID.fullmatch(made[0])
