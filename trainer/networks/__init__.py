"""Networks of training: discriminators, heads, translators, int8 simulation, and loading trained ones."""
