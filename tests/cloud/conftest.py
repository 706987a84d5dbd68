"""What the tests of the control plane share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST

from cloud import passwords
from tests.cloud import databases
from tests.cloud.world import World


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of what reaches into the database on both engines."""
    if "database" in metafunc.fixturenames:
        name = metafunc.module.__name__.rpartition(".")[2]
        engines = databases.ENGINES if name in databases.ON_BOTH else ("sqlite",)
        metafunc.parametrize("database", engines, indirect=True, ids=engines if len(engines) > 1 else [""])


@pytest.fixture(scope="session", autouse=True)
def _database_server() -> Iterator[None]:
    yield
    databases.close()


@pytest.fixture(scope="session", autouse=True)
def _cheap_hashes() -> Iterator[None]:
    """Passwords are hashed with least effort; `test_passwords` looks at the effort that is really made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_hasher", PasswordHasher.from_parameters(CHEAPEST))
        yield


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    return databases.url_for(request.param, tmp_path)


@pytest.fixture
def anyio_backend() -> str:
    """Tests marked `anyio` run in asyncio, which is what the control plane uses."""
    return "asyncio"


@pytest.fixture
def world(tmp_path: Path, database: str) -> Iterator[World]:
    """A control plane without keys."""
    made = World(tmp_path, database=database)
    yield made
    made.close()


@pytest.fixture
def registry_world(tmp_path: Path, database: str) -> Iterator[World]:
    """A control plane with keys, ready to take bundles."""
    made = World(tmp_path, database=database, with_keys=True)
    yield made
    made.close()
