"""Benchmarks: commands that print a table and write JSON, with ratios measured in one run."""
