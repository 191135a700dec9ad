"""Ablations: one fair experiment from a YAML file, and its report."""
