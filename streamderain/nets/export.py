"""Export the cores of networks to ONNX, with free sizes."""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from streamderain.nets.generator import Generator, RgbCore
from streamderain.nets.luma import BLOCK, PARTS, PRIOR_BLOCKS, Answer, LumaNetwork

OPSET = 18
_FOLDED_BYTES = 1024
INPUT_NAMES = ("window", "prior", "validity")
OUTPUT_NAMES = Answer._fields


def export_core(network: LumaNetwork, path: Path, weights: Sequence[Path] = ()) -> None:
    """Write the core of a network of luma as an ONNX file with dynamic batch, height and width.

    Inputs: `window` (N, 64, h, w), `prior` (N, 3, h, w) and `validity` (N, 2), float32, see
    `LumaNetwork.forward`, whose sizes h and w keep. Outputs: the fields of `streamderain.nets.luma.Answer`.

    Args:
        network: In float32.
        path: Target file, in the folder of the weights.
        weights: Safetensors files that together hold the network's parameters as float16: the graph reads
            them where they lie, and computes in float32. Without any it holds its parameters itself.
    """
    network = network.eval()
    blocks = torch.zeros(2, PARTS * BLOCK * BLOCK, 24, 32)
    prior = torch.zeros(2, len(PRIOR_BLOCKS), 24, 32)
    validity = torch.ones(2, 2)
    batch = torch.export.Dim("batch", min=1, max=64)
    # The middle of the network halves the blocks once or twice more.
    step = network.multiple // BLOCK
    rows = step * torch.export.Dim("rows", min=1, max=4096)
    columns = step * torch.export.Dim("columns", min=1, max=4096)
    plane = {0: batch, 2: rows, 3: columns}
    with _quiet_exporter():
        program = torch.onnx.export(
            network,
            (blocks, prior, validity),
            input_names=list(INPUT_NAMES),
            output_names=list(OUTPUT_NAMES),
            dynamic_shapes={"window": plane, "prior": plane, "validity": {0: batch}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=False)
    _finish(path, weights)


def export_rgb_core(network: Generator, path: Path, weights: Sequence[Path]) -> None:
    """Write the core of a generator as an ONNX file with dynamic height and width, without its weights.

    Input: `picture` (1, 3, height, width), float32 R, G, B in 0..1, sizes multiples of the network's, at
    least 16. Output: `change`, the same shape; see `streamderain.nets.generator.RgbCore`. The graph reads the
    weights where they lie already, in half precision, and computes in float32.

    Args:
        network: A generator, in float32.
        path: Target, in the folder of the weights.
        weights: Safetensors files that together hold the network's parameters as float16.
    """
    # Reflection at a quarter of the size needs two samples there.
    rows = 4 * torch.export.Dim("rows", min=2, max=8192)
    columns = 4 * torch.export.Dim("columns", min=2, max=8192)
    with _quiet_exporter():
        program = torch.onnx.export(
            RgbCore(network).eval(),
            (torch.zeros(1, 3, 64, 96),),
            input_names=["picture"],
            output_names=["change"],
            dynamic_shapes={"picture": {2: rows, 3: columns}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=False)
    _finish(path, weights)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    with warnings.catch_warnings():
        # The exporter tells us that equal axes share one name, which is what we asked for.
        warnings.filterwarnings("ignore", message=".*axis name.*will not be used.*")
        yield


def _finish(path: Path, weights: Sequence[Path] = ()) -> None:
    """Make an exported graph plain: axes by name, no trace of where it was made, weights where they lie.

    Free axes are called batch, rows and columns: not every reader takes the exporter's `2*rows`.

    Args:
        path: The graph; replaced.
        weights: Safetensors files whose tensors are taken out of the graph, which then points there.
    """
    import onnx  # part of the extra [train], not needed to run networks

    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.HasField("dim_param"):
                axis.dim_param = axis.dim_param.rpartition("*")[2]
    # Shapes in between are recomputed by every runtime, and would still carry the old names.
    del model.graph.value_info[:]
    # The exporter notes where each node stood in the source, with the paths of the machine it ran on.
    del model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]
    _point_to(model, {name: place for file in weights for name, place in _places(file).items()})
    onnx.save(model, str(path))
    onnx.checker.check_model(str(path))  # by path: the checker looks for outside weights beside it


def _point_to(model: Any, places: Mapping[str, tuple[str, int, int]]) -> None:
    """Replace parameters by float16 ones outside the graph, converted where they are read.

    Args:
        model: Changed in place.
        places: File name, first byte and length of each parameter by its name in the network.
    """
    from onnx import TensorProto, helper

    left = dict(places)
    conversions = []
    for tensor in model.graph.initializer:
        name = tensor.name.removeprefix("network.")
        if name not in left:
            continue
        file, offset, length = left.pop(name)
        conversions.append(helper.make_node("Cast", [f"{name}.half"], [tensor.name], to=TensorProto.FLOAT))
        outside = TensorProto(name=f"{name}.half", data_type=TensorProto.FLOAT16, dims=tensor.dims)
        outside.data_location = TensorProto.EXTERNAL
        for key, value in (("location", file), ("offset", offset), ("length", length)):
            outside.external_data.add(key=key, value=str(value))
        tensor.CopyFrom(outside)
    # Small ones may be folded into what is computed of them; those stay in the graph.
    renamed = [name for name, (_, _, length) in left.items() if length > _FOLDED_BYTES]
    assert not renamed, f"the exporter renamed {', '.join(renamed)}"
    for node in reversed(conversions):
        model.graph.node.insert(0, node)


def _places(file: Path) -> dict[str, tuple[str, int, int]]:
    """Return where each tensor of a safetensors file lies: the file's name, first byte and length."""
    with file.open("rb") as opened:
        (size,) = struct.unpack("<Q", opened.read(8))
        header = json.loads(opened.read(size))
    header.pop("__metadata__", None)
    return {
        name: (file.name, 8 + size + row["data_offsets"][0], row["data_offsets"][1] - row["data_offsets"][0])
        for name, row in header.items()
    }
