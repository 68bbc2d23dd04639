"""Live connections: bytes off a socket become frames, orders become bytes."""
