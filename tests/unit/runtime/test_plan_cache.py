"""Plans on disk: kept, found again, and never given back where anything differs."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from streamderain.errors import PlanCacheError
from streamderain.runtime import plan_cache
from streamderain.runtime.plan_cache import LIMIT_VARIABLE, PlanCache, PlanKey, StoredPlan

KEY = PlanKey(
    model="dcd-lite 1.0.0",
    graph_sha256="ab" * 32,
    package="tensorrt_rtx",
    version="1.7.1",
    capability="sm89",
    card="",
    precision="f16",
    size=(1280, 720),
    planes="luma 8-bit limited",
    flags=(),
)
PLAN = bytes(range(256)) * 16
OTHERS = [
    replace(KEY, model="dcd-lite 1.0.1"),
    replace(KEY, graph_sha256="cd" * 32),
    replace(KEY, package="tensorrt"),
    replace(KEY, version="1.7.2"),
    replace(KEY, capability="sm86"),
    replace(KEY, card="NVIDIA L4"),
    replace(KEY, precision="f32"),
    replace(KEY, size=(720, 1280)),
    replace(KEY, planes="luma 10-bit limited"),
    replace(KEY, flags=("tf32 off",)),
]


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "plans")


def keep(cache: PlanCache, key: PlanKey = KEY, *, data: bytes = PLAN) -> StoredPlan:
    return cache.keep(key, data, activation_bytes=5)


def test_a_plan_is_found_again(cache: PlanCache) -> None:
    assert cache.find(KEY) is None
    stored = keep(cache)
    assert (stored.size_bytes, stored.activation_bytes) == (len(PLAN), 5)
    found = cache.find(KEY)
    assert found is not None
    assert found[1] == PLAN
    assert found[0].key == KEY
    assert [path.suffix for path in sorted(cache.folder.iterdir())] == [".json", ".plan"]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_another_key_has_another_plan(cache: PlanCache, other: PlanKey) -> None:
    keep(cache)
    assert cache.find(other) is None


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_a_plan_under_a_wrong_name_is_not_loaded(cache: PlanCache, other: PlanKey) -> None:
    stored = keep(cache)
    for suffix in (".plan", ".json"):
        stored.path.with_suffix(suffix).rename(cache.folder / f"{other.name}{suffix}")
    assert cache.find(other) is None


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_plan_is_not_loaded(cache: PlanCache) -> None:
    flip(keep(cache).path)
    assert cache.find(KEY) is None
    keep(cache)
    assert cache.find(KEY) is not None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": {}}', '{"key": 5, "sha256": ""}'])
def test_a_sidecar_that_makes_no_sense_counts_as_none(cache: PlanCache, content: str) -> None:
    stored = keep(cache)
    stored.path.with_suffix(".json").write_text(content)
    assert cache.find(KEY) is None
    assert cache.plans() == []


def test_a_sidecar_of_another_version_counts_as_none(cache: PlanCache) -> None:
    stored = keep(cache)
    sidecar = stored.path.with_suffix(".json")
    told = json.loads(sidecar.read_text())
    told["key"]["version"] = "1.6"
    sidecar.write_text(json.dumps(told))
    assert cache.find(KEY) is None


@pytest.mark.parametrize("suffix", [".plan", ".json"])
def test_half_a_plan_counts_as_none(cache: PlanCache, suffix: str) -> None:
    keep(cache).path.with_suffix(suffix).unlink()
    assert cache.find(KEY) is None


def test_a_new_plan_throws_away_what_the_runtime_made_of_the_old_one(cache: PlanCache) -> None:
    stored = keep(cache)
    cache.keep_runtime_cache(stored, b"compiled")
    assert stored.runtime_cache.read_bytes() == b"compiled"
    keep(cache)
    assert not stored.runtime_cache.exists()


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path, limit_bytes=2 * len(PLAN))
    stored = [keep(cache, other) for other in OTHERS[:2]]
    now = time.time()
    os.utime(stored[0].path, (now - 100, now - 100))
    os.utime(stored[1].path, (now - 200, now - 200))
    cache.find(OTHERS[1])  # used just now
    cache.keep_runtime_cache(stored[0], b"compiled")
    newest = keep(cache, KEY)
    assert {plan.key for plan in cache.plans()} == {KEY, OTHERS[1]}
    assert not stored[0].runtime_cache.exists()
    assert newest.path.exists()
    assert {plan.key for plan in cache.prune(0)} == {KEY, OTHERS[1]}
    assert cache.plans() == []


def test_a_plan_larger_than_the_limit_is_kept_while_it_is_the_newest(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path, limit_bytes=10)
    keep(cache)
    assert cache.find(KEY) is not None


def test_the_limit_can_be_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "0.5")
    assert PlanCache(tmp_path).limit_bytes == 2**29
    monkeypatch.setenv(LIMIT_VARIABLE, "much")
    with pytest.raises(PlanCacheError, match="must be a number of GiB, not 'much'"):
        PlanCache(tmp_path)


def test_plans_lie_where_caches_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert PlanCache().folder == tmp_path / "streamderain" / "plans"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert PlanCache().folder == tmp_path / ".cache" / "streamderain" / "plans"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = PlanCache(tmp_path / "file" / "plans")
    with pytest.raises(PlanCacheError, match=r"cannot be written .* XDG_CACHE_HOME") as raised:
        keep(cache)
    assert raised.value.exit_code == 5
    with pytest.raises(PlanCacheError, match="cannot be written"), cache.building(KEY):
        pass


def test_a_full_disk_is_told_and_leaves_nothing_half(
    cache: PlanCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(PlanCacheError, match=r"is full .* engine prune"):
        keep(cache)
    assert list(cache.folder.iterdir()) == []


def test_two_who_want_the_same_plan_build_it_once(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_cache, "_WAIT_S", 0.01)
    built: list[int] = []
    waited: list[int] = []
    first_is_in = threading.Event()

    def want(number: int) -> None:
        if number:
            first_is_in.wait(10)
        with cache.building(KEY, lambda: waited.append(number)):
            first_is_in.set()
            if cache.find(KEY) is None:
                time.sleep(0.1)
                keep(cache)
                built.append(number)

    threads = [threading.Thread(target=want, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == [0]
    assert set(waited) == {1}


def test_plans_of_different_keys_are_built_at_once(cache: PlanCache) -> None:
    waited: list[int] = []
    with cache.building(KEY), cache.building(OTHERS[0], lambda: waited.append(1)):
        assert not waited
