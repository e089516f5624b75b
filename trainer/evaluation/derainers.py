"""Load what is to be evaluated: models through their engine, other networks through torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamderain.errors import ConfigError, EngineUnavailable, ModelNotFound
from streamderain.frame import Geometry, Planes, customary_matrix
from streamderain.models import CARD_NAME, FlowCells, ModelCard, ModelFile, read_card
from streamderain.nets.fast import FastNet
from streamderain.nets.luma import BLOCK
from streamderain.options import EngineOptions
from streamderain.runtime.base import Engine, SessionOptions
from trainer.checkpoint import checkpoint_path, is_checkpoint
from trainer.evaluation.cases import Case, VideoPlan, all_cases
from trainer.evaluation.scores import Clean, Row, score
from trainer.evaluation.validate import network_clean
from trainer.networks.network_weights import holds_weights

Codes = NDArray[np.uint8]
_WEIGHTS = "weights"
"""What is computed by torch as it is stored: there is no choice of precision."""


def evaluate(
    model: Path, dataset: Path, *, precision: str | None = None, plan: VideoPlan | None = None
) -> list[Row]:
    """Score a model on a data set, beside doing nothing: the rows that go into cards.

    Args:
        model: See `model_file`.
        dataset: See `trainer.evaluation.cases`.
        precision: See `model_file`.
        plan: How validation clips are made.
    """
    return score(all_cases(dataset, plan or VideoPlan()), load_clean(model, precision=precision))


def model_file(model: Path, precision: str | None) -> tuple[Path, str]:
    """Find what to run, and the name of its precision for reports.

    Args:
        model: A model folder, an exported core (.onnx), weights (.safetensors), a folder with the shards of
            a generator, a run's folder or a checkpoint.
        precision: For folders with a card: "f32", "int8" (run by OpenVINO), "weights" (run by torch), or None
            for what the OpenVINO engine uses by default.

    Returns:
        The same path, and the precision.

    Raises:
        ModelNotFound: There is no such file.
        ConfigError: A precision was asked of something that has its own.
    """
    if _has_engine(model):
        card = read_card(model)
        precision = precision or card.default_precision["openvino"]
        card.file(precision)
        return model, precision
    if model.is_dir() and holds_weights(model):
        found = _WEIGHTS
    elif is_checkpoint(checkpoint_path(model)):
        found = "checkpoint"
    elif model.is_file():
        found = model.name
    else:
        raise ModelNotFound(
            f"no model at {model}; give a model folder, an .onnx core, .safetensors weights or a run"
        )
    if precision not in (None, found):
        raise ConfigError(
            f"{model} has one precision and computes as it is; leave out the precision {precision}"
        )
    return model, found


def load_clean(model: Path, *, precision: str | None = None, device: str = "cpu") -> Clean:
    """Load a model as a function on cases.

    Models and exported cores are run by the engine that users run them with, through a session of it.

    Args:
        model: See `model_file`.
        precision: See `model_file`.
        device: Where torch computes; OpenVINO computes on the CPU.

    Raises:
        ModelNotFound: There is no such file.
        OpenError: Weights are damaged, or a shard is missing.
        ConfigError: The file is of no kind that can be run, or the device is not there.
    """
    _, ran = model_file(model, precision)
    if _has_engine(model):
        return engine_clean(_engine_of(model, ran, device))
    if model.suffix == ".onnx":
        from streamderain.runtime.openvino import OpenVinoEngine  # not needed to train

        return engine_clean(OpenVinoEngine(_card_of_core(model), device="auto", precision="f32", threads=0))
    if model.is_file() and not is_checkpoint(model) and model.suffix != ".safetensors":
        raise ConfigError(f"{model} is neither an .onnx core nor .safetensors weights")
    from trainer.networks.load import load_network  # knows every family of networks that can be trained

    network = load_network(model).eval()
    try:
        return network_clean(network.to(device))
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"torch cannot compute on {device!r} ({error}); choose cpu or cuda") from error


def engine_clean(engine: Engine) -> Clean:
    """Give an engine as a function on cases; each case is a session of its frames."""

    def clean(case: Case) -> Codes:
        before, current, after = case.frames
        with engine.session(_geometry(current), SessionOptions(depth=2)) as session:
            for frame in (before, current, after):
                if frame is not None:
                    session.push(_planes(frame), None, emit=frame is current)
            session.flush()
            popped = session.pop()
            assert popped is not None, "pop without a time limit returned nothing"
            _, planes = popped
            return planes[0].copy() if len(planes) == 1 else np.stack(planes, axis=-1)

    return clean


def _geometry(picture: Codes) -> Geometry:
    height, width = picture.shape[:2]
    if picture.ndim == 2:
        return Geometry(width, height, chroma="gray")
    return Geometry(width, height, chroma="rgb", matrix=customary_matrix(height), range="full")


def _planes(picture: Codes) -> Planes:
    return (picture,) if picture.ndim == 2 else tuple(picture[..., c] for c in range(3))


def _has_engine(model: Path) -> bool:
    """Return whether a path is a model folder, which an engine runs."""
    return (model / CARD_NAME).is_file()


def _engine_of(model: Path, precision: str, device: str) -> Engine:
    from streamderain.runtime.registry import open_engine  # loads the runtime, which is not needed to train

    if precision != _WEIGHTS:
        return open_engine(EngineOptions(model=str(model), engine="openvino", precision=precision))
    options = EngineOptions(model=str(model), engine="torch", device=device, precision="f32")
    try:
        return open_engine(options)
    except EngineUnavailable as error:
        raise ConfigError(f"torch cannot compute on {device!r} ({error}); choose cpu or cuda") from error


def _card_of_core(path: Path) -> ModelCard:
    """Return a card for an exported core that lies alone."""
    file = ModelFile(path, hashlib.sha256(path.read_bytes()).hexdigest())
    return ModelCard(
        name=path.stem,
        version="0",
        family=FastNet.family,
        input="luma",
        before=1,
        after=1,
        block=BLOCK,
        multiple=FastNet.multiple,
        least_px=1,
        tileable=True,
        bytes_per_px=0,
        licence="",
        summary="",
        folder=path.parent,
        files={"f32": file},
        alignment=FastNet.alignment,
        flow=FlowCells(),
        default_precision={},
        training={},
        scores=(),
    )
