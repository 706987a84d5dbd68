"""When a bundle in service has failed too often: among its last windows, or within a minute."""

from edge.failures import FAILED_WINDOWS, FAILURES, IN_A_ROW, OF_LAST_WINDOWS, WITHIN_S, RecentFailures


def failing(*, every: int, failures: int, apart_s: float) -> RecentFailures:
    """Return the count after so many failures, one every so many windows and seconds."""
    recent = RecentFailures()
    for number in range(failures):
        for _ in range(every - 1):
            recent.served()
        recent.failed(number * apart_s)
    return recent


def test_three_failures_of_the_last_twenty_windows_are_too_many() -> None:
    every = (OF_LAST_WINDOWS - 1) // (FAILED_WINDOWS - 1)
    assert failing(every=every, failures=FAILED_WINDOWS, apart_s=3600).too_many(7200)
    assert not failing(every=every + 1, failures=FAILED_WINDOWS, apart_s=3600).too_many(7200)


def test_two_failures_in_a_row_are_too_many() -> None:
    assert failing(every=1, failures=IN_A_ROW, apart_s=3600).too_many(7200) == "2 failures in a row"


def test_two_failures_with_a_window_between_them_are_not_too_many() -> None:
    assert failing(every=2, failures=2, apart_s=0).too_many(0) is None


def test_first_failure_is_not_too_many() -> None:
    assert failing(every=1, failures=1, apart_s=0).too_many(0) is None


def test_five_failures_within_a_minute_are_too_many_on_any_line() -> None:
    apart_s = WITHIN_S / (FAILURES - 1)
    last_s = apart_s * (FAILURES - 1)
    assert failing(every=1000, failures=FAILURES, apart_s=apart_s).too_many(last_s)
    assert not failing(every=1000, failures=FAILURES, apart_s=apart_s + 1).too_many(last_s + FAILURES - 1)


def test_failures_that_are_past_are_forgotten() -> None:
    recent = failing(every=1, failures=10, apart_s=0.1)
    assert recent.too_many(1.0)
    for _ in range(OF_LAST_WINDOWS):
        recent.served()
    assert recent.too_many(1.0 + WITHIN_S) is None
