"""Synthetic people: images, crowds and videos with known keypoints."""
