"""Research tooling: may import everything, is imported by nothing in the core."""
