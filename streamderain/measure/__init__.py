"""Measuring: known rain to put on clean footage, and the numbers that judge what is left of it."""
