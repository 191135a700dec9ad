"""From an image to its people."""
