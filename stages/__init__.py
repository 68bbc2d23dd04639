"""Messages and trading: the five stages, the paper venue and what they are built of."""
