"""Engines: what turns images into a network's outputs, in PyTorch or another runtime."""
