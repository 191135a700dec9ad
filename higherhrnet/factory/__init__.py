"""Config → objects: the only modules where both are known."""
