"""Worked example strategies; a user's own live in any importable module."""
