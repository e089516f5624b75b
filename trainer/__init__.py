"""Training, evaluating and exporting the networks: ``python -m trainer``, from a checkout. Not installed."""
