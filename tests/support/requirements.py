"""Needs that a bare machine may not meet: a skip there, a failure where everything must run."""

from __future__ import annotations

import os

import pytest


def require(condition: object, reason: str) -> None:
    """Skips the test unless `condition` holds; fails it where `REQUIRE_ALL=1` is set.

    Args:
        condition: What the test needs.
        reason: What is missing, for the report.
    """
    if condition:
        return
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(f"REQUIRE_ALL is set and this machine lacks: {reason}")
    pytest.skip(reason)
