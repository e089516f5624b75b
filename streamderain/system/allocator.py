"""The C library's memory allocator in processes of ours."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8
"""mallopt(3)."""
_ARENAS = 2


def share_arenas() -> bool:
    """Have the threads of this process share two pools of memory, where the C library is GNU's.

    Each of its threads would get a pool of its own, and each would keep the few frames that it once held: a
    tenth of a run's memory. For processes of ours alone, before they start threads.

    Returns:
        Whether the C library took it.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS))
    except (AttributeError, OSError, TypeError):
        return False  # another C library, with ways of its own
