"""Networks of training: discriminators, heads, translators, int8 simulation, and reading trained ones."""
