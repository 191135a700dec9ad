"""HigherHRNet with associative embedding: all people of an image at once."""
