"""The order flow: its random numbers, its balance, its limits."""

from __future__ import annotations

import numpy as np
import pytest

from shrivenq.shm.kernel import kernel
from shrivenq.stages import matching, order_flow
from shrivenq.stages.messages import INSTRUMENT
from shrivenq.stages.order_flow import EDGE_LEVELS, FIXED, Config, act, make_flow, random_bits


def instruments(*symbols):
    table = np.zeros(len(symbols), INSTRUMENT)
    table["symbol"] = [one.encode() for one in symbols]
    table["tick"], table["step"] = 1, 1000
    table["price_decimals"], table["quantity_decimals"] = 2, 8
    return table


def xoshiro(state):
    """The authors' C program, line by line, in 32-bit numpy integers."""

    def rotate(x, k):
        return (x << np.uint32(k)) | (x >> np.uint32(32 - k))

    with np.errstate(over="ignore"):
        result = rotate(state[0] + state[3], 7) + state[0]
    t = state[1] << np.uint32(9)
    state[2] ^= state[0]
    state[3] ^= state[1]
    state[1] ^= state[2]
    state[0] ^= state[3]
    state[2] ^= t
    state[3] = rotate(state[3], 11)
    return int(result)


def test_random_bits_are_those_of_xoshiro128():
    seeds = np.random.SeedSequence(4).generate_state(4, np.uint32)
    ours, theirs = seeds.astype(np.int64), seeds.copy()
    for _ in range(1_000):
        assert random_bits(ours) == xoshiro(theirs)
        assert (ours == theirs).all()


def test_quantiles_have_the_mean_and_variance_of_the_exponential_distribution():
    quantiles = make_flow(instruments("BTCUSDT"), Config(), 1).quantiles / (1 << FIXED)
    assert quantiles.mean() == pytest.approx(1, abs=0.001)
    assert quantiles.var() == pytest.approx(1, abs=0.02)


@kernel
def act_often(flow, times, lowest, trades):
    """Act `times` times in instrument 0; note the thinnest side and the trades seen."""
    for _ in range(times):
        act(flow, 0)
        ladder = flow.core.ladders[0]
        lowest[0] = min(lowest[0], ladder["bid_levels"], ladder["ask_levels"])
        trades[0] += flow.core.words[0]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_book_stays_in_balance(seed):
    config = Config(resting_orders=400)
    flow = make_flow(instruments("BTCUSDT"), config, seed)
    lowest, trades = np.array([1_000]), np.zeros(1, np.int64)
    start_ns = int(flow.flows[0]["next_ns"])
    act_often(flow, 500_000, lowest, trades)
    where = f"seed {seed}"
    # Half an order in seven events is taken; nobody ever empties a side.
    assert trades[0] > 20_000, where
    assert lowest[0] > EDGE_LEVELS // 2, where
    assert 100 < flow.core.ladders[0]["resting"] < 800, where
    assert flow.core.ladders[0]["best_bid"] < flow.core.ladders[0]["best_ask"], where
    passed_s = (int(flow.flows[0]["next_ns"]) - start_ns) / 1e9
    assert passed_s == pytest.approx(500_000 / config.events_per_s, rel=0.01), where


def test_orders_of_others_are_traded_with_and_never_cancelled():
    flow = make_flow(instruments("BTCUSDT"), Config(resting_orders=400), 5, levels=1 << 20, spare_slots=100)
    bid = matching.price_of(flow.core, 0, int(flow.core.ladders[0]["best_bid"]))
    for number in range(50):
        matching.place(flow.core, 0, 1, 1, 1, bid - 100_000 - number, 1_000, 7)
    matching.place(flow.core, 0, 1, 1, 1, bid, 1_000, 9)
    lowest, trades = np.array([1_000]), np.zeros(1, np.int64)
    act_often(flow, 50_000, lowest, trades)
    left = flow.core.orders["owner"][flow.core.orders["leaves"] > 0].tolist()
    assert (left.count(7), left.count(9)) == (50, 0)


def test_instruments_do_not_disturb_one_another():
    alone = make_flow(instruments("BTCUSDT"), Config(), 1)
    both = make_flow(instruments("BTCUSDT", "ETHUSDT"), Config(), 1)
    for _ in range(500):
        act(both, 1)
        act(alone, 0)
        act(both, 0)
    assert alone.core.ladders[0]["update_id"] == both.core.ladders[0]["update_id"]
    assert (alone.core.levels["quantity"] == both.core.levels["quantity"][: matching.LEVELS]).all()


def test_an_unknown_instrument_begins_at_a_hundred_thousand_ticks():
    flow = make_flow(instruments("XYZUSDT"), Config(), 1)
    assert matching.price_of(flow.core, 0, int(flow.flows[0]["home"])) == 100_000
    assert "XYZUSDT" not in order_flow.START_PRICES


@pytest.mark.parametrize("price", ["nan", "inf", "-5", " ", "1e300", "12,5", "9.99"])
def test_a_bad_price_is_refused(price):
    with pytest.raises(ValueError, match="simulated market: "):
        make_flow(instruments("BTCUSDT"), Config(price={"BTCUSDT": price}), 1)


def test_prices_stay_in_their_ladder_however_wild():
    flow = make_flow(instruments("BTCUSDT"), Config(volatility_bps=1_000, events_per_s=1, resting_orders=400), 3)
    lowest, trades = np.array([1_000]), np.zeros(1, np.int64)
    for _ in range(50):
        act_often(flow, 2_000, lowest, trades)
        ladder, own = flow.core.ladders[0], flow.flows[0]
        assert 0 < ladder["best_bid"] < ladder["best_ask"] < matching.LEVELS - 1
        assert abs((int(own["value"]) >> FIXED) - int(own["home"])) <= own["roam"]
