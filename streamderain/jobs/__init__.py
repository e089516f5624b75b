"""Plan a run, and work through its files one after the other."""
