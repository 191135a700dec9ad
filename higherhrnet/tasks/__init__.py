"""What HRNets do beside finding poses: classify, segment, detect."""
