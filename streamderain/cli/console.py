"""Write to standard error on behalf of the commands."""

from __future__ import annotations

import sys

from rich.console import Console


class StandardError(Console):
    """Standard error; where nobody reads it any more, it is silent instead of ending the process."""

    def __init__(self) -> None:
        super().__init__(file=sys.stderr, soft_wrap=True, highlight=False)

    def on_broken_pipe(self) -> None:
        """Fall silent. The library's own way is to exit."""
        self.quiet = True
