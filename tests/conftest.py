"""What every test shares: in CI a skipped test is a failure, because it proves nothing."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parent.parent

# `make test` runs the tests twice: on the sources, and, with this set, on the installed package, whose core is
# compiled.  What is imported first stays: every module of ours then comes from beside this one.
if os.environ.get("MAILWARD_TEST_INSTALLED"):
    everywhere = sys.path[:]
    sys.path[:] = [folder for folder in everywhere if folder and Path(folder).resolve() != ROOT]
    installed = [importlib.import_module(package).__file__ or "" for package in ("guard", "exporters")]
    sys.path[:] = everywhere
    assert not [file for file in installed if Path(file).parent.parent == ROOT], "mailward is not installed"

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
