"""Read sources: demux, decode, trim, and hand on the packets of copied streams."""
