"""Sources: from a name to decoded frames, and the packets that are copied."""
