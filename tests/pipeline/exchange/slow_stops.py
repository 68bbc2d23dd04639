"""Stop orders of the slow engine: all of them looked at, each time."""

from __future__ import annotations


class SlowStops:
    """What waits for a price."""

    @staticmethod
    def rises(side, order_type):
        return (side == "BUY") == order_type.startswith("STOP")

    def reached(self, symbol, side, order_type, stop):
        last = self.last(symbol)
        return bool(last) and (last >= stop if self.rises(side, order_type) else last <= stop)

    def follow(self, orders):
        """Let trailing stops see the last price."""
        for one in orders:
            last = self.last(one.symbol)
            if not one.trailing or not last:
                continue
            if one.extreme:
                one.extreme = min(one.extreme, last) if one.side == "BUY" else max(one.extreme, last)
            elif not one.stop or self.reached(one.symbol, one.side, one.type, one.stop):
                one.extreme = last

    def turns(self, one):
        last = self.last(one.symbol) * 10_000
        if not one.extreme:
            return False
        if one.side == "BUY":
            return last >= one.extreme * (10_000 + one.trailing)
        return last <= one.extreme * (10_000 - one.trailing)

    def triggered(self, symbol):
        """Find the stop order that is next: one that waited for a rise, for a fall, the oldest that trails."""
        mine = [one for one in self.waiting if one.symbol is symbol]
        fixed = [one for one in mine if not one.trailing and self.reached(symbol, one.side, one.type, one.stop)]
        rising = [one for one in fixed if self.rises(one.side, one.type)]
        if fixed:
            return min(rising, key=lambda one: one.stop) if rising else max(fixed, key=lambda one: one.stop)
        return next((one for one in mine if one.trailing and self.turns(one)), None)
