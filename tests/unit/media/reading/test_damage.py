"""What is remembered of broken stretches, for however long."""

from __future__ import annotations

from streamderain.media.reading.damage import GAPS_AT_MOST, TEXTS_AT_MOST, Damage, Gap


def test_memory_ends_and_counting_does_not() -> None:
    damage = Damage()
    for number in range(3 * GAPS_AT_MOST):
        damage.add(Gap(0, 10.0 * number, 10.0 * number + 1, 2, kept=number % 2 == 1))
    assert len(damage.gaps) == GAPS_AT_MOST
    assert damage.skipped_frames == 3 * GAPS_AT_MOST
    texts = damage.texts()
    assert len(texts) == TEXTS_AT_MOST + 1
    assert texts[-1] == f"and {3 * GAPS_AT_MOST - TEXTS_AT_MOST} more places like these"


def test_a_few_gaps_are_all_named() -> None:
    damage = Damage()
    damage.add(Gap(0, 1.0, 2.0, 5))
    damage.add(Gap(0, 2.0, 3.0, 5))
    damage.add(Gap(0, 7.0, None, 1))
    assert damage.texts() == [
        "video 0, from 1.000 s to 3.000 s: 10 frames could not be decoded",
        "video 0, from 7.000 s to the end: 1 frame could not be decoded",
    ]
