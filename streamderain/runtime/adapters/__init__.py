"""Adapters around model cores: their arithmetic, and their graphs for each runtime."""
