"""HRNet on one person at a time: a box around each person, a crop of each box."""
