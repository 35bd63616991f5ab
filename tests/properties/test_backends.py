"""Chains of passdbs, broken backends, lost answers: the harder half of what a server writes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties import traffic
from tests.properties.traffic import FORMS, IPS, Habits, Line, Session, Step, counted, report_on, truth

LOST = "failed: Connection lost to authentication server, sasl_username=alice@example.org"


def chained(habits: Habits, ip: str, n: int, names: list[str], wrong: int, ok: bool) -> Session:
    """Return an IMAP session in which each attempt asks every passdb; the last passdb knows who logs in."""
    id_ = traffic.session_id(ip, n)

    def line(name: str, user: str, said: str) -> Line:
        if habits.version == "2.3":
            return habits.dovecot(f"auth: {name}({user},{ip},<{id_}>): {said}")
        return habits.dovecot(f"auth({user},{ip},sasl:plain)<{id_}>: {name}: {said}")

    steps = []
    for _ in range(wrong):
        lines = [line(name, "alice@example.org", "unknown user") for name in names[:-1]]
        steps.append(Step(dovecot=[*lines, line(names[-1], "alice@example.org", "Password mismatch")]))
    tail = f"method=PLAIN, rip={ip}, lip=10.66.0.10, {'mpid=7, ' if ok else ''}TLS, session=<{id_}>"
    if ok:
        said = f"{'Login' if habits.version == '2.3' else 'Logged in'}: user=<bob@example.org>"
        asked = [line(name, "bob@example.org", "unknown user") for name in names[:-1]]
        steps.append(Step(dovecot=[*asked, habits.dovecot(f"imap-login: {said}, {tail}")]))
    else:
        steps.append(
            Step(
                dovecot=[
                    habits.dovecot(f"imap-login: {traffic._end(habits.version, ['wrong'] * wrong)}, {tail}")
                ]
            )
        )
    return Session(ip, steps, wrong)


@given(data=st.data())
@settings(max_examples=150)
def test_an_attempt_that_several_passdbs_speak_of_counts_once(data):
    host = data.draw(traffic.habits(verbose=True))
    names = data.draw(
        st.sampled_from([["first", "second"], ["passwd-file", "sql", "pam"], ["ldap", "static"]])
    )
    drawn = [
        chained(
            host,
            data.draw(st.sampled_from(IPS)),
            n,
            names,
            data.draw(st.integers(0, 4)),
            data.draw(st.booleans()),
        )
        for n in range(data.draw(st.integers(1, 5)))
    ]
    lesson = chained(host, traffic.TEACHER, 900, names, 1, ok=False)
    lines = [line for step in lesson.steps for line in step.lines()] + data.draw(traffic.interleaved(drawn))
    report = report_on(traffic.log(lines, data.draw(st.sampled_from(FORMS))))
    assert counted(report) == truth([*drawn, lesson])


@given(data=st.data())
@settings(max_examples=60)
def test_two_lines_of_one_name_are_one_attempt_once_a_session_has_shown_it(data):
    host = Habits("mx", "2.3", verbose=True)
    names = ["passwd-file", "passwd-file"]
    drawn = [chained(host, ip, n, names, data.draw(st.integers(0, 4)), ok=False) for n, ip in enumerate(IPS)]
    lesson = chained(host, traffic.TEACHER, 900, names, 1, ok=False)
    lines = [line for step in lesson.steps for line in step.lines()] + data.draw(traffic.interleaved(drawn))
    assert counted(report_on(traffic.log(lines))) == truth([*drawn, lesson])


@st.composite
def outage(draw, ip, n):
    """Draw an SMTP session whose every answer is the broken backend's fault, and sessions with the socket gone."""
    pid = str(2000 + n)
    steps = [Step(postfix=[Line("mx", "postfix/smtpd", pid, f"connect from unknown[{ip}]")])]
    for _ in range(draw(st.integers(1, 4))):
        head = (
            f"warning: unknown[{ip}]: SASL PLAIN authentication failed: (reason unavailable), sasl_username="
        )
        if draw(st.booleans()):
            socket = "warning: SASL: Connect to Dovecot auth socket 'private/auth' failed: Connection refused"
            texts = [socket, head + "(unavailable)"]
            steps.append(Step(postfix=[Line("mx", "postfix/smtpd", pid, text) for text in texts]))
        else:
            broken = f"auth-worker(7): Error: conn unix:auth-worker (pid=1,uid=2): auth-worker<3>: sql(a,{ip}): Password query failed: x"
            steps.append(
                Step(
                    [Line("mx", "postfix/smtpd", pid, head + "a")],
                    [Line("mx", "dovecot", "", broken)],
                    draw(st.booleans()),
                )
            )
    return Session(ip, steps, 0)


@given(data=st.data())
@settings(max_examples=100)
def test_a_broken_backend_is_nobodys_fault_and_hides_nobodys_failures(data):
    host = Habits("mx", data.draw(st.sampled_from(["2.3", "2.4"])), verbose=True)
    lesson = traffic.teacher(host)
    innocent = [data.draw(outage(f"198.51.100.{100 + n}", n)) for n in range(data.draw(st.integers(1, 3)))]
    guilty = data.draw(traffic.sessions(host))
    lines = [line for step in lesson.steps for line in step.lines()]
    lines += data.draw(traffic.interleaved([*innocent, *guilty]))
    report = report_on(traffic.log(lines))
    assert counted(report) == truth([lesson, *innocent, *guilty])
    assert {ban["net"] for ban in report["bans"]}.isdisjoint(f"{s.ip}/32" for s in innocent)


@given(
    st.lists(st.sampled_from(["wrong", "lost", "late"]), min_size=1, max_size=12),
    st.booleans(),
    st.sampled_from(FORMS),
)
@settings(max_examples=150)
def test_a_lost_answer_is_a_guess_once_a_failure_is_confirmed(kinds, dovecot_first, form):
    """`late`: the answer was lost, but Dovecot's own line says that the password was judged."""
    ip, head = IPS[0], f"warning: unknown[{IPS[0]}]: SASL PLAIN authentication "
    host = Habits("mx", "2.3", verbose=True)
    log, want, confirmed, now = "", 0, False, float(traffic.START)
    for kind in kinds:
        now += 20
        failed = "failed: (reason unavailable), sasl_username=alice@example.org"
        postfix = Line("mx", "postfix/smtpd", "41", head + (failed if kind == "wrong" else LOST))
        lines = [postfix, *host.auth("wrong", ip, "")] if kind != "lost" else [postfix]
        if dovecot_first:
            lines.reverse()
        log += "".join(line.at(now + n, form) + "\n" for n, line in enumerate(lines))
        confirmed = confirmed or kind != "lost"
        want += confirmed
    assert counted(report_on(log.encode())) == ({ip: want} if want else {})
