"""What is read once from beginning to end, unlike a live source, which is sought again."""

from __future__ import annotations

from streamderain.closable import Closable


class OneConnection(Closable):
    """Answers what a live source is asked besides, for one that is never lost; see `MediaSource`."""

    @property
    def goes_on(self) -> bool:
        """Whether other streams follow: never."""
        return False

    @property
    def is_given_up(self) -> bool:
        """Whether it was sought for long enough: it is never sought."""
        return False

    def refresh(self) -> bool:
        """Return nothing is live here: there is no present to begin at."""
        return False

    def take_up(self) -> bool:
        """Return nothing follows the end."""
        return False
