"""Which options the commands take."""

from __future__ import annotations

from dataclasses import fields

import pytest

from streamderain.cli.main import cli
from streamderain.options import EncodeOptions, EngineOptions, ReadOptions

LIVE = {
    "live",
    "max_latency_s",
    "rtsp_transport",
    "tls_verify",
    "wait",
    "give_up_after_s",
    "causal",
    "fail_closed",
}
TARGETS = {"container", "split_s", "keep", "max_bitrate", "hls_window", "skip_existing"}


def names(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


@pytest.mark.parametrize("command", ["run", "bench", "estimate"])
def test_every_choice_can_be_made_on_the_command_line(command: str) -> None:
    offered = {parameter.name for parameter in cli.commands[command].params}
    wanted = names(ReadOptions) | names(EncodeOptions) | names(EngineOptions)
    only_of_a_run = LIVE | TARGETS
    assert wanted - (set() if command == "run" else only_of_a_run) <= offered


def test_what_is_compared_can_be_read_in_every_way() -> None:
    offered = {parameter.name for parameter in cli.commands["compare"].params}
    assert names(ReadOptions) - LIVE <= offered
