"""Codecs: people ↔ maps. Every encode stands next to its decode."""
