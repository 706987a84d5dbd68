"""What is said about a machine that is not here."""

import pytest

from edge.errors import ConfigError
from export.speed import estimate


def test_without_a_measurement_nothing_is_claimed() -> None:
    assert estimate(1.5, None) == "no profile was named"
    assert "no claim for rpi4" in estimate(1.5, "rpi4")


def test_with_a_measured_factor_the_estimate_names_it() -> None:
    assert "about 4.80 ms" in estimate(1.5, "rpi4=3.2")
    assert "× 3.2" in estimate(1.5, "rpi4=3.2")


@pytest.mark.parametrize("profile", ["rpi4=", "rpi4=fast", "rpi4=-1", "rpi4=0", "rpi4=inf", "rpi4=nan"])
def test_factor_that_is_none_is_refused(profile: str) -> None:
    with pytest.raises(ConfigError, match="NAME=FACTOR"):
        estimate(1.5, profile)
