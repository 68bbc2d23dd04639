"""Venue codecs without I/O: bytes to messages and messages to bytes."""
