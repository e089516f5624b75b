"""The networks need torch, which `make test-fast` does without."""

from __future__ import annotations

import importlib.util
import os

if importlib.util.find_spec("torch") is None and os.environ.get("REQUIRE_ALL") != "1":
    collect_ignore = ["test_nets.py"]
