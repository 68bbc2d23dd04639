"""Shared memory that knows nothing of trading: rings, boards, pools and what they stand on."""
