"""Torch modules shared by the torch runtime and the trainer. Importing this room imports torch."""
