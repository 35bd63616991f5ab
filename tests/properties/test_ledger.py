"""Whatever clients do, in whatever order their lines come: each failed attempt is counted exactly once."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties import traffic
from tests.properties.traffic import FORMS, START, Habits, Line, Session, counted, report_on, truth


@given(data=st.data())
@settings(max_examples=150)
def test_counts_do_not_depend_on_the_interleaving_of_sessions(data):
    hosts = [data.draw(traffic.habits("a")), data.draw(traffic.habits("b"))]
    drawn = [s for n, host in enumerate(hosts) for s in data.draw(traffic.sessions(host, first=100 * n))]
    lessons = [traffic.teacher(host) for host in hosts]
    first = [line for lesson in lessons for step in lesson.steps for line in step.lines()]
    form = data.draw(st.sampled_from(FORMS))
    lines = first + data.draw(traffic.interleaved(drawn))
    assert counted(report_on(traffic.log(lines, form))) == truth(drawn + lessons)


@given(data=st.data())
@settings(max_examples=60)
def test_what_a_host_shows_late_corrects_what_was_believed_early(data):
    host = data.draw(traffic.habits(verbose=True))
    drawn = [*data.draw(traffic.sessions(host, services="login")), traffic.teacher(host)]
    lines = data.draw(traffic.interleaved(drawn))
    assert counted(report_on(traffic.log(lines))) == truth(drawn)


@given(data=st.data())
@settings(max_examples=60)
def test_bytes_may_come_in_any_pieces(data):
    host = data.draw(traffic.habits())
    content = traffic.log(data.draw(traffic.interleaved(data.draw(traffic.sessions(host)))))
    content = content[: len(content) - data.draw(st.integers(0, 1))]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=20)))
    guard = traffic.engine()
    for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
        guard.feed("log0", content[start:end])
    guard.finish("log0")
    assert guard.report() == report_on(content)


def placed(
    drawn: list[Session],
    shift: Callable[[int], float],
    lost: Callable[[int], bool],
    first: Callable[[int], int],
) -> list[tuple[float, Line]]:
    """Return (time, line): Dovecot's shifted or lost as drawn, each daemon in its own order."""
    moments: list[tuple[float, int, Line]] = []
    now, latest, n = START + 10.0, {"postfix": 0.0, "dovecot": 0.0}, 0
    for session in drawn:
        for step in session.steps:
            now += 1.0
            for line in step.lines():
                n += 1
                moment = now
                if line.tag == "dovecot":
                    if lost(n):
                        continue
                    moment += shift(n)
                daemon = line.tag[:7]
                latest[daemon] = moment = max(moment, latest[daemon])
                moments.append((moment, first(n), line))
    moments.sort(key=lambda item: item[:2] if item[2].tag == "dovecot" else (item[0], 1))
    return [(moment, line) for moment, _, line in moments]


@given(data=st.data())
@settings(max_examples=150)
def test_smtp_attempts_do_not_depend_on_dovecots_lines_being_lost_or_moved(data):
    host = Habits("mx", data.draw(st.sampled_from(["2.3", "2.4"])), verbose=True)
    drawn = data.draw(traffic.sessions(host, services="smtp"))
    lost = data.draw(st.sampled_from(["none", "all", "some"]))
    shifts = data.draw(st.lists(st.floats(-2, 2), min_size=97, max_size=97))
    gone = data.draw(st.lists(st.booleans(), min_size=97, max_size=97))
    early = data.draw(st.lists(st.integers(0, 2), min_size=97, max_size=97))
    lines = placed(
        drawn,
        lambda n: shifts[n % 97],
        lambda n: lost == "all" or (lost == "some" and gone[n % 97]),
        lambda n: early[n % 97],
    )
    form = data.draw(st.sampled_from(["iso", "3164"]))
    content = "".join(line.at(moment, form) + "\n" for moment, line in lines).encode()
    report = report_on(content)
    assert counted(report) == truth(drawn)
    assert set(report["failures"]["by_service"]) <= {"postfix"}


@given(data=st.data())
@settings(max_examples=60)
def test_dovecots_side_alone_gives_the_same_smtp_counts(data):
    host = Habits("mx", data.draw(st.sampled_from(["2.3", "2.4"])), verbose=True)
    drawn = data.draw(traffic.sessions(host, services="smtp"))
    lines = [line for line in data.draw(traffic.interleaved(drawn)) if line.tag == "dovecot"]
    assert counted(report_on(traffic.log(lines))) == truth(drawn)


@given(data=st.data())
@settings(max_examples=60)
def test_two_files_may_be_read_one_after_the_other_within_two_seconds(data):
    host = Habits("mx", data.draw(st.sampled_from(["2.3", "2.4"])), verbose=True)
    drawn = data.draw(traffic.sessions(host, services="smtp"))
    lines = [line for session in drawn for step in session.steps for line in step.lines()]
    daemons = data.draw(st.permutations(["dovecot", "postfix"]))
    rate = max(1, len(lines)) / 2.0
    content = "".join(
        line.at(START + n / rate, "iso") + "\n"
        for daemon in daemons
        for n, line in enumerate(lines)
        if line.tag.startswith(daemon)
    )
    assert counted(report_on(content.encode())) == truth(drawn)


@given(st.integers(1, 30), st.sampled_from(["smtp", "2.3", "2.4"]), st.sampled_from(FORMS))
def test_identical_lines_are_separate_attempts(n, service, form):
    if service == "smtp":
        text = "warning: unknown[198.51.100.7]: SASL PLAIN authentication failed: x, sasl_username=a"
        line = Line("mx", "postfix/smtpd", "41", text)
    else:
        [line] = Habits("mx", service, verbose=True).auth(
            "wrong", "198.51.100.7", traffic.session_id("198.51.100.7", 1)
        )
    content = (line.at(START, form) + "\n").encode() * n
    assert counted(report_on(content)) == {"198.51.100.7": n}


@given(data=st.data())
@settings(max_examples=60)
def test_no_session_of_postfix_counts_more_than_its_disconnect_line_admits(data):
    host = data.draw(traffic.habits())
    drawn = data.draw(traffic.sessions(host, services="smtp"))
    drawn = list({session.ip: session for session in drawn}.values())
    counts = counted(report_on(traffic.log(data.draw(traffic.interleaved(drawn)))))
    for session in drawn:
        assert counts.get(session.ip, 0) <= session.tried - session.succeeded
        if session.failures == session.tried - session.succeeded:
            assert counts.get(session.ip, 0) == session.failures
