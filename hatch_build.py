"""Build hook: compiles the pure core with mypyc while the wheel is built.

The sources stay the one implementation: what is compiled here is what the checkout runs and tests as plain
Python.  ``MAILWARD_COMPILE`` decides: ``0`` never compile, ``1`` a failure to compile fails the build; unset, a
failure (no C compiler, no Python headers) leaves a pure-Python wheel and says so.

A compiled core is kept in ``.build/core-<digest>/`` of everything it is made from, so that a change elsewhere
(a command, a source, a store) does not compile it again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The pure core, from envelope to bans: the only list of what gets compiled.  A package's own `__init__` is
# named by itself; a pattern that matches nothing yet is fine.
CORE = (
    "guard/model.py",
    "guard/addresses.py",
    "guard/nets.py",
    "guard/bounded.py",
    "guard/clock.py",
    "guard/stats.py",
    "guard/programs.py",
    "guard/senders.py",
    "guard/traffic.py",
    "guard/mail.py",
    "guard/envelope.py",
    "guard/scan.py",
    "guard/parsers/*.py",
    "guard/reader.py",
    "guard/sessions/*.py",
    "guard/tally.py",
    "guard/attacked.py",
    "guard/rules/*.py",
    "guard/bans/*.py",
    "guard/report.py",
    "guard/state.py",
    "guard/notices.py",
    "guard/judge.py",
    "guard/orders.py",
    "guard/elsewhere.py",
    "guard/engine.py",
)


def core_sources(root: Path) -> list[str]:
    """Return the files of the core under `root`, relative to it, in a stable order."""
    return sorted(str(path.relative_to(root)) for pattern in CORE for path in root.glob(pattern))


class CompiledCore(BuildHookInterface[Any]):
    """Adds the compiled core to the wheel, or leaves it pure."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and place the extension modules beside their sources in the wheel."""
        wish = os.environ.get("MAILWARD_COMPILE", "")
        if self.target_name != "wheel" or version == "editable" or wish == "0":
            return
        root = Path(self.root)
        try:
            built = compiled(root)
        except subprocess.CalledProcessError as error:
            tail = "\n".join(str(error.output).strip().splitlines()[-25:])
            if wish == "1":
                raise SystemExit(
                    f"{tail}\nmailward: the core could not be compiled, and MAILWARD_COMPILE=1"
                ) from None
            self.app.display_warning(
                f"{tail}\nmailward: the core could not be compiled: this build is pure Python,"
            )
            self.app.display_warning("same results, several times slower (needed: gcc and python3-dev).")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for module in built.rglob("*.so"):
            build_data["force_include"][str(module)] = str(module.relative_to(built))


def compiled(root: Path) -> Path:
    """Return the folder that holds the compiled core of `root`, building it where it is not there yet.

    Raises:
        subprocess.CalledProcessError: the core does not compile; its output says why.
    """
    sources = core_sources(root)
    digest = hashlib.sha256()
    for part in (
        sys.version,
        sysconfig.get_platform(),
        installed_version("mypy"),
        os.environ.get("CFLAGS", ""),
    ):
        digest.update(part.encode() + b"\0")
    for name in (Path(__file__).name, *sources):
        digest.update(name.encode() + b"\0" + (root / name).read_bytes() + b"\0")
    done = root / ".build" / f"core-{digest.hexdigest()[:16]}"
    if done.is_dir():
        return done
    done.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=done.parent, prefix="compiling-") as work:
        # A process of its own: mypyc and setuptools exit and print as they please.
        subprocess.run(
            [sys.executable, __file__, work, *sources],
            cwd=root,
            check=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for old in done.parent.glob("core-*"):
            shutil.rmtree(old, ignore_errors=True)
        (Path(work) / "lib").rename(done)
    return done


def compile_core(work: Path, sources: list[str]) -> None:
    """Compile `sources` as one unit into ``work/lib``; run in a process of its own, from the project's root."""
    from mypyc.build import mypycify  # noqa: PLC0415 - needed in this process only
    from setuptools import Distribution  # noqa: PLC0415 - as above

    # An empty --config-file keeps pyproject's strict rules out: style is the linter's matter, not the compiler's.
    options = ["--config-file=", "--python-executable", sys.executable]
    extensions = mypycify(
        [*options, *sources], target_dir=str(work / "c"), group_name="guard", opt_level="3", debug_level="0"
    )
    build = Distribution({"name": "mailward", "ext_modules": extensions, "packages": []}).get_command_obj(
        "build_ext"
    )
    build.build_lib, build.build_temp = str(work / "lib"), str(work / "obj")
    build.ensure_finalized()
    build.run()


if __name__ == "__main__":
    compile_core(Path(sys.argv[1]), sys.argv[2:])
