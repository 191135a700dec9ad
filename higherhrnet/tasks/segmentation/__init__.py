"""HRNetV2: label maps."""
