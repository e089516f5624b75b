"""Training methods: supervised pairs, and DCD-GAN's unpaired translation."""
