"""Annotated images, and how training sees them."""
