"""The trainer's commands: thin; they parse, call and map errors to exit codes."""

from trainer.cli.main import cli, main

__all__ = ["cli", "main"]
