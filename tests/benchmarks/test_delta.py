"""The benchmark of deltas on two committed bundles."""

from benchmarks.delta import COMMITTED, MODELS, measured


def test_committed_versions_come_for_less_than_half_of_the_whole() -> None:
    folder, old, new, change = COMMITTED[0]
    old_bytes, new_bytes = ((MODELS / folder / f"{name}.lsb").read_bytes() for name in (old, new))
    result = measured(f"{old} → {new}", change, old_bytes, new_bytes)
    assert result.share is not None
    assert result.share < 0.33
    assert result.apply_ms is not None
