"""What the cards of exported models say: of the networks of luma, and of the generator of RGB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from streamderain.models import FlowCells
from streamderain.nets import deep, fast, generator, luma
from streamderain.nets.network import Network

_MATERIAL = (
    "photographs of BSDS500, CamVid and ImageNet, {clips}rainy pairs like those of Rain1400, Rain800 and "
    "Rain100H, rain layers by Garg and Nayar"
)
_MIXED = "Trained on research material under mixed or unstated licences, none of which is shipped: "


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    Attributes:
        facts: What its card says of what it reads.
        precisions: Those that are exported, the first of them without rounding.
        default_precision: By engine.
        summary: One sentence for `models list`.
        attribution: What must be said of its data and of whose idea it is.
        about: Markdown: what it is.
        shortcomings: Markdown: what it does badly.
        judged: Markdown: how its scores were measured.
        lesson: What it learned from, in sentences.
        unpaired: What is said of unpaired training where there was none, and where there was; none for kinds
            that have no such part.
    """

    facts: Mapping[str, Any]
    precisions: tuple[str, ...]
    default_precision: Mapping[str, str]
    summary: str
    attribution: str
    about: str
    shortcomings: str
    judged: str
    lesson: str
    unpaired: tuple[str, ...] = ()


UNPAIRED_CONFIG = "dcd-unpaired"
"""The configuration whose runs are the unpaired part of dcd-gan."""


def _facts_of_luma(network: type[luma.LumaNetwork]) -> dict[str, Any]:
    return {
        "family": network.family,
        "input": "luma",
        "before": 1,
        "after": 1,
        "block": luma.BLOCK,
        "multiple": network.multiple,
        "tileable": True,
        "alignment": network.alignment,
        "flow": asdict(FlowCells()),
    }


_JUDGED_LUMA = """Means over pictures, beside the score of the untouched input. On *rain-free* rows the input
is the target, and the score measures harm; 100 dB stands for equal pictures. *Every 3.* means that only every
third frame is taken: motion three times as fast. Clips: rain drawn on them, as it
is and after H.264 (CRF 23), luma plane. Stills: luma of MATLAB's rgb2ycbcr, no neighbours. These sets were
watched while the training was set up: they are no unseen test."""

_LESSON_LUMA = (
    "rain drawn over rain-free clips and photographs, and a few pairs from elsewhere. No pairs of real rain."
)

FAST = Kind(
    facts=_facts_of_luma(fast.FastNet),
    precisions=("f32", "int8"),
    default_precision={"openvino": "int8", "torch": "f32"},
    summary="Fast deraining of video luma from three frames; int8 on CPUs.",
    attribution=f"{_MIXED}{_MATERIAL.format(clips='dashcam clips, ')}. The problem and the name follow "
    "DCD-GAN (Chen et al., CVPR 2022); its code and weights are not used.",
    about="""- Family `fast` (`streamderain/nets/fast.py`): sees the luma of a frame and by how much it is
  brighter or darker than the previous and the next one, which are first aligned with it by optical flow,
  and tells what light to take away. None is ever added; chroma passes untouched.
- A missing neighbour (still picture, first or last frame, scene cut) is a copy of the current frame with a
  validity of 0.
- `model.onnx` computes in float32, `model.int8.onnx` in int8 (for CPUs), `weights.safetensors` holds the
  parameters.""",
    shortcomings="""\
- Single pictures fare much worse than video: what differs between frames is its strongest cue.
- Rain whose streaks cover most of the picture from several directions (Rain100H) is hardly thinned.
- Where the scene rushes past (leaves beside a fast car) neighbours do not fit, and rain stays rather than
  texture goes.
- Drops on the windscreen or lens, splashes, fog and veils stay: it removes falling streaks.
- Streaks that look unlike the drawn kind, such as very wide, blurred or dark ones, may stay.""",
    judged=_JUDGED_LUMA,
    lesson=_LESSON_LUMA,
)

DEEP = Kind(
    facts=_facts_of_luma(deep.DeepNet),
    precisions=("f32",),
    default_precision={"openvino": "f32", "torch": "f32"},
    summary="Deep deraining of luma: takes more rain from video and pictures, in several times as long.",
    attribution=f"{_MIXED}{_MATERIAL.format(clips='dashcam clips, ')}. The problem and the name follow "
    "DCD-GAN (Chen et al., CVPR 2022); its code and weights are not used.",
    about="""- Family `deep` (`streamderain/nets/deep.py`): reads and answers what the fast one does (luma of
  a frame, by how much it is brighter or darker than its neighbours, which are aligned with it by optical
  flow) with residual blocks at a quarter, an eighth and a sixteenth of the size. None is ever added; chroma
  passes untouched.
- A missing neighbour (still picture, first or last frame, scene cut) is a copy of the current frame with a
  validity of 0.
- `weights*.safetensors` hold the parameters in half precision, `model.onnx` the graph, which reads them there
  and computes in float32.""",
    shortcomings="""\
- Slower than dcd-lite: `streamderain estimate` tells how long a video takes.
- Where a camera moves fast over fine texture (every second or third frame of a pan) it is up to 0.7 dB worse
  than dcd-lite in rain. It changes rain-free video more: by 3 to 9 dB on the clips above.
- Much of the rain stays in single pictures; rain whose streaks cover most of the picture from several
  directions (Rain100H) is thinned, not gone.
- Drops on the windscreen or lens, splashes, fog and veils stay: it removes falling streaks.""",
    judged=_JUDGED_LUMA,
    lesson=_LESSON_LUMA,
)

_GENERATOR_BYTES_PER_PX = 2_000
"""Measured at 1280x720 in float32: 1,530 with OpenVINO, 1,980 with torch."""

GENERATOR = Kind(
    facts={
        "family": generator.ResidualGenerator.family,
        "input": "rgb",
        "before": 0,
        "after": 0,
        "block": 1,
        "multiple": generator.MULTIPLE,
        "least_px": generator.ResidualGenerator.least_px,
        "tileable": False,
        "bytes_per_px": _GENERATOR_BYTES_PER_PX,
    },
    precisions=("f32",),
    default_precision={"openvino": "f32", "torch": "f32"},
    summary="The generator of DCD-GAN: whole frames in colour, one at a time; seconds a frame on a CPU.",
    attribution=f"{_MIXED}{_MATERIAL.format(clips='')}. The network, the objective and the name are those "
    "of DCD-GAN (Chen et al., 'Unpaired Deep Image Deraining Using Dual Contrastive Learning', CVPR 2022); "
    "its authors' code and weights are not used.",
    about="""- Family `residual-generator` (`streamderain/nets/generator.py`): the ResNet generator of DCD-GAN
  with nine blocks, anti-aliased resampling and instance norm, 11,378,179 parameters, layer for layer as the
  paper has it. Here its answer is added to the picture, in units of the picture's contrast: instance norm
  makes the layers blind to brightness and contrast, which they would have to guess.
- Sees one whole frame at a time, in R, G and B; neighbours are not looked at. Its statistics span the frame,
  so frames cannot be cut in tiles: where memory does not suffice, `--max-size` lets it work at a smaller
  size.
- Luma and chroma change where it finds rain; where it changes nothing every code stays as it is.
- `weights-*.safetensors` hold the parameters in half precision, `model.onnx` the graph, which reads them
  there and computes in float32.""",
    shortcomings="""\
- Slow: 977,000 multiplications and additions for each pixel. `streamderain estimate` tells how long a video
  takes.
- Does not see other frames: what looks like a streak in one picture, such as a thin bright twig, is one to
  it.
- Drops on the windscreen or lens, splashes, fog and veils mostly stay.
- Heavy rain of several directions (Rain100H) is thinned, not gone.""",
    judged="""Means over pictures, beside the score of the untouched input. On *rain-free* rows the input
is the target, and the score measures harm. Rain100L and Rain100H: the validation half of their test pictures.
They were watched while the training was set up, and where the unpaired part is among the runs below, their
rainy sides belonged to its rainy domain: they are no unseen test. Luma of MATLAB's rgb2ycbcr.""",
    lesson="paired were photographs with rain that we drew on them, and a few pairs from elsewhere. No pairs "
    "of real rain, and none of Rain100L, Rain100H or SIRR.",
    unpaired=(
        "Nothing of it is unpaired yet: these weights come from pairs alone.",
        "Unpaired, in the runs of `dcd-unpaired`: real rainy photographs, the rainy sides of the validation "
        "halves of Rain100L and Rain100H, and photographs with drawn rain, against rain-free photographs of "
        "other scenes.",
    ),
)

KINDS = {str(kind.facts["family"]): kind for kind in (FAST, DEEP, GENERATOR)}


def kind_of(network: Network) -> Kind:
    """Return what the cards of a network's family say."""
    return KINDS[network.family]
