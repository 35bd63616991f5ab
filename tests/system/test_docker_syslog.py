"""What Docker's log driver `syslog` sends of containers, to the real daemon: each failure counted, whose line it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.daemon import Daemon, failure, session, stamp
from tests.system.containers import Engine, _image, requires_engine
from tests.system.netns import mail_host

pytestmark = [pytest.mark.system, pytest.mark.docker]

DRIVERS = {
    "as it is": {},
    "rfc3164, a tag": {"syslog-format": "rfc3164", "tag": "docker/{{.Name}}"},
    "a service's tag": {"tag": "{service}"},
    "rfc5424, any tag": {"syslog-format": "rfc5424", "tag": "{{.Name}}"},
    "rfc5424micro": {"syslog-format": "rfc5424micro", "tag": "mail-{{.Name}}"},
}
FAILURES = 7


class Listening(Daemon):
    """A daemon that listens where an engine with a network of its own reaches it: at unix sockets."""

    def configure(self, text: str) -> None:
        listen = [f"unix://{self.folder}/log", f"unix-stream://{self.folder}/log.stream"]
        self.config.write_text(
            f'[[source]]\ntype = "syslog"\nname = "containers"\nlisten = {listen}\n{text}\n'
            f'[store]\nurl = "memory:"\n[control]\nsocket = "{self.socket}"\n'
        )

    def failures(self) -> dict[str, int]:
        """Return how many failures are counted of each address."""
        return {source["ip"]: source["failures"] for source in self.ask("report")["sources"]}


@pytest.fixture(scope="module")
def containers(tmp_path_factory):
    requires_engine()
    with (
        mail_host() as lab,
        Engine(lab, tmp_path_factory.mktemp("engine"), {}) as engine,
        engine._client() as client,
    ):
        client.api.import_image_from_data(_image(), repository="mail")
        yield client.containers


@pytest.fixture(scope="module")
def listening(tmp_path_factory):
    with Listening(tmp_path_factory.mktemp("daemon")) as daemon:
        yield daemon


def lines(number: int) -> dict[str, list[str]]:
    """Return what two containers write to their standard output; Dovecot in the form of its own log files."""
    one, two = f"198.51.100.{number}", f"203.0.113.{number}"
    at, sid = stamp(1.0), session(two)  # another clock, or zone
    return {
        "postfix": [
            f"{at} mx postfix/smtpd[412]: warning: unknown[{one}]: SASL LOGIN authentication failed: UGFzc3dvcmQ6, sasl_username=user{n}@example.org"
            for n in range(FAILURES)
        ],
        "dovecot": [
            failure(two, sid=sid).replace(" mx dovecot: auth: ", " auth: Info: ") for _ in range(FAILURES)
        ],
    }


@pytest.mark.parametrize(("number", "kind", "driver"), [
    (n, kind, driver)
    for n, (kind, driver) in enumerate(((k, d) for k in ("unixgram", "unix") for d in DRIVERS), 21)
])  # fmt: skip
def test_the_failures_of_containers_are_counted(containers, listening, number, kind, driver):
    path = Path(listening.folder, "log" if kind == "unixgram" else "log.stream")
    for service, said in lines(number).items():
        options = {key: value.replace("{service}", service) for key, value in DRIVERS[driver].items()}
        containers.run(
            "mail", ["/bin/busybox", "printf", "%s\\n", *said], name=f"{service}-{number}", auto_remove=True, detach=True,
            log_config={"type": "syslog", "config": {"syslog-address": f"{kind}://{path}", **options}},
        )  # fmt: skip
    want = {f"198.51.100.{number}": FAILURES, f"203.0.113.{number}": FAILURES}
    listening.until(lambda: listening.failures() | want == listening.failures(), 60.0)
