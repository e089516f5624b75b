"""Threads, bounded queues and the order of shutdown."""
