"""OpenVINO, imported without its telemetry.

That would send a report of the import to a server of others, from a forked copy of this process: against what
users expect of a program that reads their cameras. Where there is no way out, the copy can hang for ever, and
hold every pipe of ours open.
"""

from __future__ import annotations

import sys
from typing import Any

_TELEMETRY = "openvino_telemetry"

_seen: Any = sys.modules.get(_TELEMETRY)
if _seen is None:
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # its import fails, and OpenVINO has a stand-in
try:
    import openvino as ov
    import openvino.opset13 as ops
finally:
    if _seen is None:
        del sys.modules[_TELEMETRY]

__all__ = ["ops", "ov"]
