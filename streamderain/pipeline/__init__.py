"""The pipeline: threads, bounded queues and the order of shutdown."""
