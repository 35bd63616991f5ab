"""What every test shares: in CI a skipped test is a failure, because it proves nothing."""

from __future__ import annotations

import os

import hypothesis
import pytest

# The machine may be busy: a slow example is no failure.  What a test may take is pytest-timeout's matter.
hypothesis.settings.register_profile("mailward", deadline=None)
hypothesis.settings.load_profile("mailward")


def skipped(config: pytest.Config) -> list[str]:
    """Return `node: reason` of each test and each module that was skipped so far."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter else []
    return [f"{report.nodeid}: {report.longrepr[2]}" for report in reports]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if os.environ.get("CI") and skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    names = skipped(config)
    if not (os.environ.get("CI") and names):
        return
    terminalreporter.section("a skip is a failure here", red=True)
    for name in sorted(names):
        terminalreporter.line(name)
