"""Torch networks shared by the torch engine and the trainer. Importing this package imports torch."""
