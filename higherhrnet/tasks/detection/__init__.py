"""HRNetV2p: boxes."""
