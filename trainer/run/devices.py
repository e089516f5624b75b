"""Choose devices, precision and the processes that train together, by Lightning Fabric."""

from __future__ import annotations

import logging

import torch
from lightning_fabric import Fabric

from streamderain.errors import ConfigError
from trainer.config import TrainConfig


def open_fabric(config: TrainConfig, *, accelerator: str = "auto", devices: int = 1) -> Fabric:
    """Set up devices and start the other processes where there are several.

    Under torchrun the processes exist already and find each other by its environment.

    Args:
        config: Its precision, and the batch that is dealt out.
        accelerator: "cpu", "cuda" or "auto".
        devices: Devices that train together, one process each.

    Raises:
        ConfigError: There is no such device, it does not know the precision, or the batch cannot be dealt.
    """
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    parts = config.accumulate * devices
    if config.batch % parts:
        raise ConfigError(
            f"a batch of {config.batch} cannot be dealt out to {devices} devices in {config.accumulate} "
            f"parts each; make batch a multiple of {parts}"
        )
    # Networks of which a loss reaches only parts (the rain generator of the lite family) need the search.
    strategy = "auto" if devices == 1 else "ddp_find_unused_parameters_true"
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            strategy=strategy,
            precision=config.precision,  # type: ignore[arg-type]
        )
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"cannot train on {devices} x {accelerator} in {config.precision}: {error}; "
            "choose --accelerator cpu, fewer --devices or --precision 32-true"
        ) from error
    if fabric.device.type == "cuda":
        # Convolutions of one size all the time: worth a search. Float32 products may use the tensor cores.
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    return fabric
