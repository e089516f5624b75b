"""The `streamderain` command. Thin: parses, calls the API, maps errors to exit codes.

Modules that are slow to import are imported inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from streamderain import __version__
from streamderain.addresses import is_address, redact
from streamderain.cli.text import printable
from streamderain.errors import EXIT_INTERRUPTED, PipelineError, StreamderainError
from streamderain.models import AUTO, PICTURE_MODEL, VIDEO_MODEL
from streamderain.options import parse_bitrate, parse_bytes, parse_seconds


def _encoder_options(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> Any:
    pairs = {}
    for value in values:
        key, sign, setting = value.partition("=")
        if not key or not sign:
            raise click.BadParameter(f"{value!r} is not of the form key=value")
        pairs[key] = setting
    return pairs


class Seconds(click.ParamType[float]):
    """Seconds (`60` or `60s`), or [HH:]MM:SS[.fraction]."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the time in seconds."""
        try:
            return parse_seconds(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class BitRate(click.ParamType[int]):
    """Bits a second, in units of 1, 1000 (k) or a million (M)."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bits a second."""
        try:
            return parse_bitrate(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class ByteSize(click.ParamType[int]):
    """Bytes, in units of 1, a million (MB) or a thousand million (GB)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        try:
            return parse_bytes(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class ReportOption(click.Option):
    """Where a report goes: `--json` for standard output, `--json=PATH` for a file; never the next."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Show the equals sign without which no path is taken."""
        record = super().get_help_record(ctx)
        return record and (record[0].replace(" [=PATH]", "[=PATH]"), record[1])


class Command(click.Command):
    """A command whose report options take a path only behind an equals sign.

    The next word may be the user's only copy of a video.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give report options without a path their default one, standard output."""
        names = {name for one in self.params if isinstance(one, ReportOption) for name in one.opts}
        end = args.index("--") if "--" in args else len(args)
        spelt = [f"{word}=-" if word in names else word for word in args[:end]]
        return super().parse_args(ctx, [*spelt, *args[end:]])


class Group(click.Group):
    """The commands, with a hint for those who give a video where a command belongs."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command a line begins with."""
        name = args[0]
        if self.get_command(ctx, name) is None and (is_address(name) or Path(name).exists()):
            ctx.fail(f"{name} is no command. To derain it: streamderain run {name} -o TARGET")
        return super().resolve_command(ctx, args)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="streamderain")
def cli() -> None:
    """Take the rain out of video: one command, nothing lost but the rain."""


_Options = tuple[Callable[[Any], Any], ...]

_TARGET: _Options = (
    click.option(
        "-o",
        "--output",
        "targets",
        multiple=True,
        required=True,
        metavar="TARGET",
        help="Where the result goes: a file, a folder where SOURCE holds several, an address (rtsp://, "
        "rtmp://, udp://, tcp://), a playlist (.m3u8), or - for standard output. May be given repeatedly.",
    ),
)

_ENGINE: _Options = (
    click.option(
        "--model",
        default=AUTO,
        show_default=True,
        help=f"Model name, or a model folder. auto: {VIDEO_MODEL}, but {PICTURE_MODEL} for single pictures.",
    ),
    click.option("--engine", default="auto", show_default=True, help="auto, openvino, torch or tensorrt."),
)

_ENGINE_SETTINGS: _Options = (
    click.option("--device", default="auto", show_default=True, help="Device, in the engine's words."),
    click.option(
        "--precision",
        default="auto",
        show_default=True,
        help="f32, f16, bf16 or int8; not every engine has all.",
    ),
    click.option("--threads", default=0, metavar="N", help="Processor threads for the engine; 0 for all."),
    click.option(
        "--strength", default=1.0, show_default=True, help="How much of the rain is taken away, 0 to 1."
    ),
    click.option(
        "--alignment",
        default="auto",
        show_default=True,
        help="off leaves neighbouring frames where they are: for comparison, where the camera stands still.",
    ),
    click.option(
        "--max-size",
        default=0,
        metavar="PX",
        help="Longest side at which a model of whole frames, such as dcd-gan, sees them; 0 for their own.",
    ),
)

_ENCODER: _Options = (
    click.option("--codec", help="Video encoder.  [default: libx264 where the target can hold it]"),
    click.option("--crf", type=float, help="Quality of the encoder, lower is better.  [default: 18]"),
    click.option("--preset", help="Preset of the encoder.  [default: veryfast]"),
    click.option("--pix-fmt", help="Pixel format.  [default: the source's]"),
    click.option(
        "-e",
        "extra",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_encoder_options,
        help="Any further option of the encoder.",
    ),
)

_TRIM: _Options = (
    click.option(
        "-ss",
        "--start",
        "start_s",
        type=Seconds(),
        default=0.0,
        metavar="TIME",
        help="Where in the source the result begins: seconds or HH:MM:SS.",
    ),
    click.option("-t", "--duration", "duration_s", type=Seconds(), metavar="TIME", help="How long it is."),
)

_READ: _Options = (
    click.option("--stills", is_flag=True, help="Treat numbered images one by one, not as a video."),
    click.option(
        "--recursive",
        is_flag=True,
        help="Search folders within SOURCE; TARGET gets the same tree. Several such runs share the work.",
    ),
    click.option("--deinterlace", is_flag=True, help="Make interlaced video progressive."),
    click.option(
        "--hwaccel",
        default="none",
        show_default=True,
        type=click.Choice(["none", "cuda"]),
        help="cuda decodes on an NVIDIA GPU.",
    ),
    click.option(
        "--image-rate",
        "image_rate_fps",
        default=25.0,
        show_default=True,
        metavar="FPS",
        help="Frame rate of a numbered run of images.",
    ),
)

_TARGETS: _Options = (
    click.option(
        "--format",
        "container",
        metavar="NAME",
        help="Format of standard output (matroska, mpegts, ...) or of a playlist's segments (mpegts, mp4).",
    ),
    click.option(
        "--split",
        "split_s",
        type=Seconds(),
        metavar="TIME",
        help="Begin a new file after this time.  [default: 60s where TARGET has a % time in its name]",
    ),
    click.option(
        "--keep",
        metavar="TIME|SIZE",
        help="Remove the oldest of the files that were split: 7d, 12h, 50GB.",
    ),
    click.option(
        "--max-bitrate",
        type=BitRate(),
        metavar="RATE",
        help="Most bits a second of the encoder: 800k, 4M.",
    ),
    click.option(
        "--hls-window",
        default=6,
        show_default=True,
        metavar="N",
        help="Segments in the playlist of a live source.",
    ),
)

_LIVE: _Options = (
    click.option(
        "--live/--no-live",
        default=None,
        help="Whether an address is sought again where it ends.  [default: all but HTTP]",
    ),
    click.option(
        "--max-latency",
        "max_latency_s",
        type=Seconds(),
        default=0.5,
        show_default=True,
        metavar="TIME",
        help="From how late on frames of a live source are dropped.",
    ),
    click.option(
        "--rtsp-transport",
        default="tcp",
        show_default=True,
        type=click.Choice(["tcp", "udp"]),
        help="How RTSP sends media.",
    ),
    click.option("--causal", is_flag=True, help="Never wait for the next frame: less delay, less found."),
    click.option(
        "--fail-closed",
        is_flag=True,
        help="Where the engine of a live source fails, pause; else frames pass unprocessed.",
    ),
    click.option("--tls-verify", is_flag=True, help="Take RTSPS and HTTPS only with a valid certificate."),
    click.option("--wait", is_flag=True, help="Wait for a live source that has never answered."),
    click.option(
        "--give-up-after",
        "give_up_after_s",
        type=Seconds(),
        metavar="TIME",
        help="How long a live source that was lost is sought.  [default: for ever]",
    ),
)


def _report(name: str, kind: str) -> Callable[[Any], Any]:
    return click.option(
        f"--{name}",
        f"{name}_path",
        cls=ReportOption,
        metavar="[=PATH]",
        help=f"Write {kind} to PATH, or to standard output.",
    )


_WORK: _Options = (
    click.option(
        "--jobs",
        default=0,
        metavar="N",
        help="Pieces of a file that are worked on at once.  [default: one for four cores]",
    ),
    click.option(
        "--segment-length",
        "segment_length_s",
        type=Seconds(),
        metavar="TIME",
        help="Work in pieces of this length.  [default: 20s, in files over 10 minutes]",
    ),
    click.option(
        "--max-memory",
        "max_memory_bytes",
        type=ByteSize(),
        metavar="SIZE",
        help="Most memory of all jobs together: 8GB.  [default: what the machine has]",
    ),
    click.option(
        "--cluster",
        metavar="auto|ray://HOST:PORT",
        help="Have a Ray cluster work on the pieces; source and target lie on a shared file system.",
    ),
    click.option(
        "--shard",
        metavar="I/N",
        help="Only every N-th file, from the I-th on, counted from 0: for arrays of jobs.",
    ),
    click.option("--retry-failed", is_flag=True, help="Take up files of an archive that failed before."),
    click.option("--restart", is_flag=True, help="Throw away the pieces that an earlier run left."),
    click.option(
        "--pass-failed",
        is_flag=True,
        help="Let pieces through unprocessed that the engine crashes on again and again.",
    ),
)

_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace existing files.")
_SKIP_EXISTING = click.option(
    "--skip-existing",
    is_flag=True,
    help="Leave out files whose target is there: goes on with an interrupted run.",
)
_QUIET = click.option("-q", "--quiet", is_flag=True, help="Say nothing but warnings and errors.")


def _with(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@cli.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@_with(*_TARGET, *_ENGINE, *_ENGINE_SETTINGS, *_ENCODER, *_TARGETS, *_TRIM, *_READ, *_WORK, *_LIVE)
@_with(_OVERWRITE, _SKIP_EXISTING, _report("json", "a summary as JSON"), _QUIET)
def run(**arguments: Any) -> None:
    """Take the rain out of SOURCE and write the result to TARGET.

    SOURCE is a video, an image, a folder of either, a glob in quotes, or - for standard input. Sound,
    subtitles, chapters, metadata and timing stay as they are.
    """
    from streamderain.cli.run import run_command

    sys.exit(run_command(**arguments))


@cli.command()
@click.argument("source", required=False)
@click.option(
    "--reference", metavar="CLEAN", help="The clean version of SOURCE: measures quality against it."
)
@click.option("--synth-rain", is_flag=True, help="Draw known rain on a dry SOURCE and measure its removal.")
@click.option("--model", default="dcd-lite", show_default=True, metavar="NAME[,NAME]", help="Models.")
@click.option("--engine", default="auto", show_default=True, metavar="NAME[,NAME]", help="Engines.")
@click.option(
    "--sizes",
    default="480p,720p,1080p,2160p",
    show_default=True,
    help="Which built-in clips, where there is no SOURCE; 2160p only where memory allows.",
)
@click.option("--repeats", default=3, show_default=True, help="Measurements after the warm-up.")
@_with(*_ENGINE_SETTINGS, *_ENCODER, *_TRIM, *_READ)
@_with(_report("json", "everything as JSON"), _report("markdown", "the tables as Markdown"))
@_with(_report("html", "one self-contained page with charts"), _OVERWRITE, _QUIET)
def bench(**arguments: Any) -> None:
    """Measure what this machine does with SOURCE, or with built-in clips of several sizes.

    Every stage alone and the whole way from file to file: speed, latency, processor, memory. Without -t the
    first 10 seconds of SOURCE are measured. Several engines or models are compared, taking turns.
    """
    from streamderain.cli.bench import bench_command

    sys.exit(bench_command(**arguments))


@cli.command()
@click.argument("clips", nargs=-1, required=True, metavar="A B [REFERENCE]")
@click.option(
    "-o",
    "--output",
    "target",
    required=True,
    metavar="TARGET",
    help="A page (.html) or a video (.mp4, .mkv).",
)
@click.option("--wipe", is_flag=True, help="One picture with a divider that wanders, instead of two.")
@_with(*_TRIM, *_READ, _report("json", "every frame's figures as JSON"), _OVERWRITE, _QUIET)
def compare(**arguments: Any) -> None:
    """Show two versions of a clip beside each other and measure every frame.

    With a REFERENCE both are measured against it, without one B is measured against A. Frames belong
    together where their times agree. A page holds its pictures, so that it takes the first 20 seconds
    unless -t says more; a video has no sound.
    """
    from streamderain.cli.compare import compare_command

    sys.exit(compare_command(**arguments))


@cli.command()
@click.argument("source")
@_with(*_ENGINE, *_ENGINE_SETTINGS, *_ENCODER, *_TRIM, *_READ, *_WORK[:2])
@_with(_report("json", "the estimate as JSON"), _OVERWRITE, _QUIET)
def estimate(**arguments: Any) -> None:
    """Tell how long deraining SOURCE will take, with how much memory, and how large the result will be.

    A few pieces, spread over the file, are derained for it: with the same options as the run to come.
    """
    from streamderain.cli.estimate import estimate_command

    sys.exit(estimate_command(**arguments))


@cli.command()
@_with(_report("json", "all checks as JSON"), _OVERWRITE)
def doctor(**arguments: Any) -> None:
    """Check the installation and name the command that fixes each fault.

    FFmpeg, encoders, models, engines, GPUs and disks are looked at.
    Encoders and engines are really tried, each in a process of its own.
    """
    from streamderain.cli.doctor import doctor_command

    sys.exit(doctor_command(**arguments))


@cli.command()
@click.argument("config", metavar="CONFIG.yaml", type=click.Path(exists=True, dir_okay=False))
@click.option("--check", is_flag=True, help="Only say whether the file is right.")
def serve(**arguments: Any) -> None:
    """Run the cameras of a site for ever, with a page, streams and metrics.

    Each has a process of its own. SIGHUP takes over a changed file; cameras that did not change go on.
    """
    from streamderain.cli.serve import serve_command

    serve_command(**arguments)


@cli.command()
@click.argument("target")
@_with(_report("json", "everything as JSON"), _OVERWRITE, _QUIET)
def status(**arguments: Any) -> None:
    """Show what is done of the archive whose results go to TARGET, and how long the rest takes."""
    from streamderain.cli.status import status_command

    sys.exit(status_command(**arguments))


@cli.group()
def models() -> None:
    """Show the models that can be used."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def models_list(as_json: bool) -> None:
    """List all models, a line each."""
    from streamderain.cli.models import list_command

    list_command(as_json=as_json)


@models.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def models_show(name: str, as_json: bool) -> None:
    """Show one model's card: what it reads, what it was trained on, how well it does."""
    from streamderain.cli.models import show_command

    show_command(name, as_json=as_json)


@cli.group()
def engine() -> None:
    """Build, list and remove plans: models compiled by TensorRT for one size and one kind of GPU."""


@engine.command("build")
@click.argument("model", default="dcd-lite")
@click.option("--size", metavar="WIDTHxHEIGHT", help="Size of the frames, as coded.")
@click.option("--pix-fmt", default="yuv420p", show_default=True, help="Their pixel format.")
@click.option("--like", metavar="VIDEO", help="Take size and pixel format from a video.")
@click.option("--for", "capability", metavar="smNN", help="Build for another card: sm89 for Ada.")
@click.option("--device", default="auto", show_default=True, help="Build for this one: cuda or cuda:N.")
@click.option("--precision", default="auto", show_default=True, help="f16 or f32.")
@click.option("--max-size", default=0, metavar="PX", help="As for run.")
@_with(_report("log", "everything that the builder says"), _OVERWRITE, _QUIET)
def engine_build(**arguments: Any) -> None:
    """Build the plan of MODEL ahead, so that no run has to.

    Plans lie in $XDG_CACHE_HOME/streamderain/plans, ~/.cache unless that is set.
    """
    from streamderain.cli.engine import build_command

    build_command(**arguments)


@engine.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def engine_list(as_json: bool) -> None:
    """List all plans, a line each, the latest used first."""
    from streamderain.cli.engine import list_command

    list_command(as_json=as_json)


@engine.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def engine_show(name: str, as_json: bool) -> None:
    """Show all that is known of one plan; a part of its name will do."""
    from streamderain.cli.engine import show_command

    show_command(name, as_json=as_json)


@engine.command("prune")
@click.option("--all", "everything", is_flag=True, help="Remove every plan.")
@click.option("--keep-gib", "limit_gib", type=float, metavar="N", help="Keep so much.  [default: the limit]")
def engine_prune(everything: bool, limit_gib: float | None) -> None:
    """Remove plans, the longest unused first, until the rest fits."""
    from streamderain.cli.engine import prune_command

    prune_command(everything=everything, limit_gib=limit_gib)


@cli.command()
@click.option("-o", "--output", "folder", default="demo", show_default=True, help="Folder for the results.")
@_with(_OVERWRITE)
def demo(folder: str, overwrite: bool) -> None:
    """Derain the short clip that comes with the package and make a before/after picture."""
    from streamderain.cli.demo import demo_command

    sys.exit(demo_command(folder, overwrite=overwrite))


def _usage(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return ""
    return f"{context.get_usage()}\nTry '{context.command_path} --help' for help.\n\n"


def main() -> NoReturn:
    """Entry point: every error a user can meet becomes one message and an exit code, never a traceback."""
    # A polite kill and a closed terminal clean up as Ctrl-C does; what runs under nohup minds no hang-up.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(cli(standalone_mode=False) or 0)
    except click.ClickException as error:
        _say(_usage(error) + f"Error: {error.format_message()}")
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except StreamderainError as error:
        _say(f"streamderain: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        if os.environ.get("STREAMDERAIN_TRACEBACK"):
            raise
        _say(
            f"streamderain: a fault of streamderain itself: {error!r}. Please report it; "
            "STREAMDERAIN_TRACEBACK=1 shows where it arose"
        )
        sys.exit(PipelineError.exit_code)


def _say(text: str) -> None:
    """Write a message to standard error; where nobody reads that, the exit code tells."""
    with contextlib.suppress(OSError):
        click.echo(printable(redact(text)), err=True)
