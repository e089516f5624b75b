"""Constants shared by int8 export and int8 training."""

import numpy as np

INPUT_SCALE = np.float32(1.0 / 255.0)
"""Step of the first convolution's input: one 8-bit code, so that 8-bit video enters the network exactly."""

OUTLIERS = 1e-3
"""Share of a sample's activations that may lie above the range."""

SUM_RANGE = "sum"
"""Name of the range behind the transposed convolution's sum; others bear their convolution's name."""
