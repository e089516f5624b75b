"""The project's record of speed and quality; run from a checkout."""
