"""The exchange simulator: a venue of our own that speaks Binance Spot's protocols."""
