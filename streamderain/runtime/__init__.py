"""Engines: live runtimes that remove rain from planes. Knows nothing of media files."""
