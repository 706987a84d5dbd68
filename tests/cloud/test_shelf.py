"""Several copies give out one signed list of bundles."""

import shutil
from pathlib import Path

import pytest

from cloud.errors import ConflictError
from tests.bundles import bundle_bytes
from tests.cloud.databases import empty_postgresql
from tests.cloud.publishing import publish, signed
from tests.cloud.world import World


def _two_copies(folder: Path) -> tuple[World, World]:
    url = empty_postgresql()
    first = World(folder / "a", database=url, with_keys=True)
    second = World(folder / "b", database=url)
    shutil.copytree(first.config.keys_dir, second.config.keys_dir)
    assert second.services.registry.open()
    return first, second


def test_bundle_published_at_one_copy_is_in_the_list_of_the_other(tmp_path: Path) -> None:
    first, second = _two_copies(tmp_path)
    publish(first, bundle_bytes("1.0.0"))
    repositories = [world.services.registry.repository for world in (first, second)]
    assert repositories[0].targets_bytes() == repositories[1].targets_bytes()
    stamps = [one.metadata_path("timestamp.json").read_bytes() for one in repositories]
    assert stamps[0] == stamps[1]
    assert [view.ref.version for view in second.services.registry.bundles()] == ["1.0.0"]
    first.close()
    second.close()


def test_list_that_another_copy_was_quicker_to_publish_is_refused(tmp_path: Path) -> None:
    first, second = _two_copies(tmp_path)
    late = signed(first, bundle_bytes("1.0.0"), path="brightness-1.0.0.lsb")
    first.services.registry.repository.check(late)
    first.services.registry.repository.accept(late)
    with pytest.raises(ConflictError, match="expected version"):
        second.services.registry.repository.accept(late)
    first.close()
    second.close()


def test_copy_signs_a_timestamp_anew_once_for_all(tmp_path: Path) -> None:
    first, second = _two_copies(tmp_path)
    repositories = [world.services.registry.repository for world in (first, second)]
    for world in (first, second):
        world.clock.forward(13 * 3600)
    assert [one.refresh() for one in repositories] == [True, False]
    stamps = [one.metadata_path("timestamp.json").read_bytes() for one in repositories]
    assert stamps[0] == stamps[1]
    first.close()
    second.close()
