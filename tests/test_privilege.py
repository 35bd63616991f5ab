"""The daemon's own user without root: what is refused, and how the packaging's files stand."""

from __future__ import annotations

import os
import pwd

import pytest

from guard.app import CannotRunError
from guard.app._privilege import _verify
from tests.daemon import Daemon


def test_an_unknown_user_is_told_with_the_way_to_make_it(tmp_path):
    done = Daemon(tmp_path).command("run", "--user", "no-such-user")
    assert done.returncode == 3
    [line] = done.stderr.splitlines()
    assert "--user no-such-user: there is no such user; make one: useradd --system" in line


def test_root_is_no_user_of_its_own(tmp_path):
    done = Daemon(tmp_path).command("run", "--user", "root")
    assert (done.returncode, done.stdout) == (2, "")
    assert "that is root" in done.stderr


def test_rights_that_are_not_as_meant_end_the_start():
    with pytest.raises(CannotRunError, match=r"the rights are not as meant: .*CapEff [0-9a-f]{16}"):
        _verify(pwd.getpwuid(os.getuid()), 1 << 62)
