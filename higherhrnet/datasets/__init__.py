"""Pictures with annotated people, and how training sees them."""
