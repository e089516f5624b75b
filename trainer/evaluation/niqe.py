"""Compute NIQE, a no-reference quality metric (Mittal et al., IEEE SPL 2013), by pyiqa.

Implementations differ by whole points, so a figure is worth nothing without the tool and its version: they
are part of the metric's name.
"""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamderain.errors import ConfigError, OpenError
from streamderain.system.installing import install_command

Codes = NDArray[np.uint8]
_BLOCK_PX = 96


class Niqe:
    """NIQE of RGB pictures; less is better.

    Args:
        parameters: The file niqe_modelparameters.mat; pyiqa fetches its own, once, where it is not given.

    Raises:
        ConfigError: pyiqa is not installed.
        OpenError: The parameters cannot be read or fetched.
    """

    def __init__(self, parameters: Path | None = None) -> None:
        if parameters is not None and not parameters.is_file():
            raise OpenError(f"no NIQE parameters at {parameters}; give pyiqa's niqe_modelparameters.mat")
        options = {} if parameters is None else {"pretrained_model_path": str(parameters)}
        pyiqa = _pyiqa()
        self._version = str(pyiqa.__version__)
        try:
            self._metric = pyiqa.create_metric("niqe", device="cpu", **options)
        except Exception as error:  # pyiqa lets the errors of urllib, huggingface_hub and scipy through
            where = "fetched" if parameters is None else f"read from {parameters}"
            raise OpenError(
                f"pyiqa's parameters for NIQE could not be {where} ({error}); fetch niqe_modelparameters.mat "
                "from its releases (github.com/chaofengc/IQA-PyTorch) and name it with --niqe-parameters"
            ) from error

    @property
    def name(self) -> str:
        """The metric with its tool and version, such as "niqe (pyiqa 0.1.16)"."""
        return f"niqe ({self.tool})"

    @property
    def tool(self) -> str:
        """The tool and its version."""
        return f"pyiqa {self._version}"

    def __call__(self, rgb: Codes) -> float:
        """Return the NIQE of a picture.

        Args:
            rgb: (height, width, 3) uint8, at least two blocks of 96 px.

        Raises:
            OpenError: The picture is too small, or too plain, to have one.
        """
        height, width, _ = rgb.shape
        if (height // _BLOCK_PX) * (width // _BLOCK_PX) < 2:
            raise OpenError(
                f"NIQE needs two blocks of {_BLOCK_PX} px, which a picture of {width}x{height} px has not; "
                "leave out --niqe for this data set"
            )
        picture = torch.from_numpy(rgb.astype(np.float32) / 255.0).permute(2, 0, 1)[None]
        value = float(self._metric(picture))
        if not math.isfinite(value):
            raise OpenError(
                f"NIQE of a picture of {width}x{height} px is {value}: too plain; leave out --niqe"
            )
        return value


def _pyiqa() -> Any:
    try:
        return importlib.import_module("pyiqa")
    except ImportError as error:
        raise ConfigError(
            f"NIQE needs pyiqa, which is not installed ({error}): {install_command('pyiqa')}, "
            "or leave out --niqe"
        ) from error
