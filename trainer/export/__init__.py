"""Export a run to a model folder: cores, int8, card."""
