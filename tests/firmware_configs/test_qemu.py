"""Waiting for a guest: time in which it was kept from running does not count."""

import pytest

from firmware_configs.prove.qemu import Patience


def test_machine_that_has_its_processors_alone_has_as_long_as_was_said() -> None:
    patience = Patience(10)
    for second in range(6):
        patience.spend(second, (second * 10**9, 0))
    assert patience.left_s == pytest.approx(5)


def test_machine_that_waits_for_a_processor_half_the_time_has_twice_as_long() -> None:
    patience = Patience(10)
    for second in range(11):
        patience.spend(second, (second * 10**9, second * 10**9))
    assert patience.left_s == pytest.approx(5)


def test_machine_that_wants_no_processor_spends_its_time_all_the_same() -> None:
    patience = Patience(10)
    for second in range(11):
        patience.spend(second, (10**9, 10**9))
    assert patience.left_s == pytest.approx(0)
