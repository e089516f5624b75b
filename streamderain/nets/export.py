"""Export the core of the fast network to ONNX, with free batch and size."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from streamderain.nets.fast import BLOCK, PARTS, PRIOR_BLOCKS, Answer
from streamderain.nets.network import Network

OPSET = 18
INPUT_NAMES = ("window", "prior", "validity")
OUTPUT_NAMES = Answer._fields


def export_core(network: Network, path: Path) -> None:
    """Write the core as a self-contained ONNX file with dynamic batch, height and width.

    Inputs: `window` (N, 64, h, w), `prior` (N, 3, h, w) and `validity` (N, 2), float32, see
    `FastNet.forward`, with even h and w. Outputs: the fields of `streamderain.nets.fast.Answer`.

    Args:
        network: One of the fast family, in float32.
        path: Target file.
    """
    network = network.eval()
    blocks = torch.zeros(2, PARTS * BLOCK * BLOCK, 24, 32)
    prior = torch.zeros(2, len(PRIOR_BLOCKS), 24, 32)
    validity = torch.ones(2, 2)
    batch = torch.export.Dim("batch", min=1, max=64)
    # Multiples of 2, since the middle of the network halves the blocks once more.
    rows = 2 * torch.export.Dim("rows", min=1, max=4096)
    columns = 2 * torch.export.Dim("columns", min=1, max=4096)
    plane = {0: batch, 2: rows, 3: columns}
    with warnings.catch_warnings():
        # The exporter tells us that equal axes share one name, which is what we asked for.
        warnings.filterwarnings("ignore", message=".*axis name.*will not be used.*")
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
    _name_axes(path)


def _name_axes(path: Path) -> None:
    """Call the free axes batch, rows and columns: not every reader takes the exporter's `2*rows`."""
    import onnx  # part of the extra [train], not needed to run networks

    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.HasField("dim_param"):
                axis.dim_param = axis.dim_param.removeprefix("2*")
    # Shapes in between are recomputed by every runtime, and would still carry the old names.
    del model.graph.value_info[:]
    # The exporter notes where each node stood in the source, with the paths of the machine it ran on.
    del model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
