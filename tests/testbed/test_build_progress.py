"""What a person sees while binaries are built. The clock only moves when told."""

import io

from testbed.assets.display import Lines


class Clock:
    """Seconds, as a number to set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_long_step_is_never_silent_for_half_a_minute() -> None:
    clock, out = Clock(), io.StringIO()
    display = Lines(out, clock)
    display.plan({"kube-apiserver": 220, "kubectl": 25})
    display.begin("kube-apiserver")
    silences, spoke = [], 0.0
    for tick in range(600):
        clock.now = tick / 2
        before = out.tell()
        display.tick()
        if out.tell() != before:
            silences.append(clock.now - spoke)
            spoke = clock.now
    assert max(silences) <= 30
    assert len(silences) < 20


def test_lines_say_which_step_how_long_and_of_how_long() -> None:
    clock, out = Clock(), io.StringIO()
    display = Lines(out, clock)
    display.plan({"kube-apiserver": 220, "kubectl": 25})
    display.begin("kube-apiserver")
    clock.now = 75
    display.end("kube-apiserver")
    display.begin("kubectl")
    assert out.getvalue().splitlines() == [
        "testbed: building kube-apiserver, kubectl: about 4 min on two cores",
        "testbed: building kube-apiserver (1 of 2, 0:00 of about 4:05)",
        "testbed: built kube-apiserver in 75 s (1 of 2, 1:15 of about 4:05)",
        "testbed: building kubectl (2 of 2, 1:15 of about 1:40)",
    ]


def test_on_a_machine_that_is_slow_the_end_is_expected_later() -> None:
    clock, out = Clock(), io.StringIO()
    display = Lines(out, clock)
    display.plan({"kube-apiserver": 220, "kubectl": 25})
    display.begin("kube-apiserver")
    for clock.now in range(0, 661, 20):
        display.tick()
    assert "building kube-apiserver (1 of 2, 3:40 of about 4:05)" in out.getvalue()
    assert "building kube-apiserver (1 of 2, 11:00 of about 12:15)" in out.getvalue()


def test_waiting_for_another_build_is_said_once_and_then_now_and_then() -> None:
    clock, out = Clock(), io.StringIO()
    display = Lines(out, clock)
    for second in range(45):
        clock.now = second
        display.waiting("another build is at work")
    assert out.getvalue().count("waiting: another build is at work") == 3
