import os
import signal

import pytest

from prockd.interrupts import Terminated, held_back, terminable


def step(number: int, times: int = 1) -> list[str]:
    """Work in whose midst a signal comes."""
    done: list[str] = []
    try:
        with held_back() as waiting:
            assert not waiting
            for _ in range(times):
                os.kill(os.getpid(), number)
            assert waiting
            done.append("the step")
    except Terminated:
        done.append("terminated")
    except KeyboardInterrupt:
        done.append("interrupted")
    return done


def test_ctrl_c_waits_until_the_work_is_done():
    assert step(signal.SIGINT) == ["the step", "interrupted"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_ctrl_c_does_not_wait():
    assert step(signal.SIGINT, times=2) == ["interrupted"]


def test_sigterm_is_raised_where_it_was_asked_for_and_waits_too():
    with terminable():
        assert step(signal.SIGTERM) == ["the step", "terminated"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_error_is_not_hidden_by_a_signal_that_waits():
    def fail() -> None:
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)
            raise ValueError("no such image")

    with pytest.raises(ValueError, match="no such image"):
        fail()


def test_nothing_is_held_back_unasked():
    with held_back(False):
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
