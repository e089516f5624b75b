"""Make the demo clip that ships with the package: procedural rain on a piece of a freely licensed clip.

    python -m benchmarks.demo_clip intel_car-detection_static_cam.mp4

The source is Intel's "car-detection" sample video (CC-BY 4.0); NOTICE carries the attribution. Rain is
rendered on luma before encoding, so the clip holds what users feed: rain that a codec has seen.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import click
import numpy as np

from streamderain.measure.rain import RainParameters, RainSequence

TARGET = Path(__file__).parent.parent / "streamderain" / "assets" / "demo.mp4"
RAIN = RainParameters(density_per_mpx=1600, length_px=17, width_px=2.2, peak=0.26, angle_deg=6)


@click.command()
@click.argument("source", type=click.Path(exists=True, dir_okay=False))
@click.option("--target", default=str(TARGET), show_default=True)
@click.option("--first", default=186, show_default=True, help="First frame of the piece.")
@click.option("--count", default=45, show_default=True, help="Number of frames.")
def main(source: str, target: str, first: int, count: int) -> None:
    """Cut a piece out of SOURCE, render rain on it and encode it."""
    Path(target).parent.mkdir(exist_ok=True)
    with av.open(source) as reader, av.open(target, "w", options={"movflags": "faststart"}) as writer:
        video = reader.streams.video[0]
        options = {"crf": "25", "preset": "slow"}
        stream = writer.add_stream("libx264", rate=video.average_rate, options=options)
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, "yuv420p"
        stream.codec_context.time_base = Fraction(1) / video.average_rate
        rain = RainSequence(RAIN, 1, video.width, video.height)
        for index, frame in enumerate(reader.decode(video)):
            if index >= first + count:
                break
            if index < first:
                continue
            frame.make_writable()
            plane = frame.planes[0]
            luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
            luma[:] = rain.apply_to_codes(luma, index - first)
            frame.pts, frame.pict_type = index - first, 0
            frame.time_base = stream.codec_context.time_base
            writer.mux(stream.encode(frame))
        writer.mux(stream.encode())
    click.echo(f"{target}: {Path(target).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
