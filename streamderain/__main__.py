"""Entry point of `python -m streamderain` and of the installed command."""

from __future__ import annotations

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command. Ctrl-C ends it without a traceback, also while its modules are still being read."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        from streamderain.cli.main import main as command

        signal.signal(signal.SIGINT, signal.default_int_handler)
    else:  # a shell starts what runs in the background with Ctrl-C ignored
        from streamderain.cli.main import main as command
    command()


if __name__ == "__main__":
    main()
