"""Scores: from predictions and annotations to AP."""
