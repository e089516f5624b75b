"""The numbers around a core, and their graphs for each runtime."""
