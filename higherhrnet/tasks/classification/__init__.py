"""HRNet with the ImageNet head."""
