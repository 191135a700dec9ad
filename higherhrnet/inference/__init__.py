"""From a picture to its people."""
