"""Annotated configurations shipped with the package."""
