"""Train, evaluate and export the networks: `python -m trainer`, from a checkout. Not installed."""
