"""Networks: HRNet, HigherHRNet, the top-down and classification heads, and their weights."""
