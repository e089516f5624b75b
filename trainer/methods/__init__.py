"""Methods of training by name: supervised pairs, and DCD-GAN's unpaired translation."""
