"""The configured allow and deny lists as they are at this moment: the configuration's nets, its files, its names.

What an administrator adds by hand is the engine's; here is only what stands somewhere else and may change there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

from guard.app._names import Names
from guard.config import Config, ConfigError, ListFile, ListKey, read_list, stamp_of
from guard.log import logger
from guard.model import Policy

LOOK: Final = 1.0  # seconds between two looks at the files

File = tuple[ListKey, str]  # which list, the path


class _Watched:
    """A file: what was last taken of it, and what was seen of it since."""

    __slots__ = ("content", "done", "read", "seen", "trouble")

    def __init__(self, content: ListFile) -> None:
        self.content = content
        self.read = time.time()
        self.seen: object = content.stamp  # at the last look: its stamp, or why there is none
        self.done: object = content.stamp  # what needs no other look: it was taken, or refused
        self.trouble: list[str] = []  # why it is not taken as it is now


class Lists:
    """Owns files and names of the configuration's lists."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._config: Config | None = None
        self._files: dict[File, _Watched] = {}
        self._now: dict[ListKey, tuple[str, ...]] = {"allow": (), "deny": ()}

    def take(self, config: Config) -> None:
        """Take a configuration, its files as it has read them; all names are looked up again at once."""
        self._config = config
        self._files = {file: _Watched(content) for file, content in config.list_files.items()}
        self.names.want(self._wanted(), again=True)
        self._join()

    def apply(self, policy: Policy) -> Policy:
        """Return `policy` with the lists as they are now."""
        return policy._replace(allow=self._now["allow"], deny=self._now["deny"])

    async def begin(self, config: Config) -> None:
        """Take the first configuration, and give names that were never resolved a moment to be."""
        self.take(config)
        await self.names.begin()
        self._join()

    async def run(self, changed: Callable[[], None]) -> None:
        """Follow files and names until cancelled; `changed` is called when a list is another."""

        def joined() -> None:
            self._join()
            changed()

        async with asyncio.TaskGroup() as group:
            group.create_task(self.names.run(joined))
            group.create_task(self._watch(joined))

    def origins(self, key: ListKey, by_hand: list[str]) -> list[dict[str, object]]:
        """Return where the entries of a list stand, as docs/json.md has it."""
        now = time.time()
        found = [_origin("config", self._entries(key))]
        found += [self._name(name, None, now) for name in self._listed(key)]
        for (of, path), file in self._files.items():
            if of == key:
                trouble = "; ".join(file.trouble)
                age = round(now - file.read, 3)
                found.append(_origin("file", file.content.nets, file=path, age=age, trouble=trouble))
                found += [self._name(name, path, now) for name in file.content.names]
        found.append(_origin("hand", by_hand))
        return [origin for origin in found if origin["nets"] or origin["from"] in ("name", "file")]

    def _name(self, name: str, file: str | None, now: float) -> dict[str, object]:
        known = self.names[name]
        age = round(max(0.0, now - known.at), 3) if known.at else None
        ttl = known.ttl if known.at else None
        return _origin("name", known.nets, file=file, name=name, ttl=ttl, age=age, trouble=known.trouble)

    def _entries(self, key: ListKey) -> tuple[str, ...]:
        return self._config.list_nets(key) if self._config else ()

    def _listed(self, key: ListKey) -> tuple[str, ...]:
        return self._config.allow_names() if self._config and key == "allow" else ()

    def _wanted(self) -> list[str]:
        return [
            *self._listed("allow"),
            *(name for file in self._files.values() for name in file.content.names),
        ]

    def _join(self) -> None:
        for key in self._now:
            nets = dict.fromkeys(self._entries(key))
            for (of, _), file in self._files.items():
                if of == key:
                    nets |= dict.fromkeys(file.content.nets)
            if key == "allow":
                nets |= dict.fromkeys(self.names.nets())
            self._now[key] = tuple(nets)

    # -- files -----------------------------------------------------------------------------------------------------

    async def _watch(self, changed: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(LOOK)
            files = self._files
            fresh = await asyncio.to_thread(_look, files) if files else {}
            if not fresh or files is not self._files:  # a reload has read them all meanwhile
                continue
            for (key, path), content in fresh.items():
                file = files[key, path]
                file.content, file.read = content, time.time()
                nets, names = len(content.nets), len(content.names)
                logger().info("a list is read again", list=key, file=path, nets=nets, names=names)
            self.names.want(self._wanted())
            changed()


def _look(files: Mapping[File, _Watched]) -> dict[File, ListFile]:
    """Read again what has changed and has come to rest; tell what is not taken.

    A file that is being written in place changes from look to look: it is read when that has ended.
    """
    fresh: dict[File, ListFile] = {}
    for (key, path), file in files.items():
        try:
            seen: object = stamp_of(path)
        except OSError as error:
            seen = error.strerror or str(error)
        rests, file.seen = seen == file.seen, seen
        if not rests or seen == file.done:
            continue
        file.done = seen
        file.trouble = []
        try:
            content = fresh[key, path] = read_list(path, key)
            file.done = content.stamp
        except ConfigError as error:
            file.trouble = [str(problem) for problem in error.problems]
        except OSError as error:
            file.trouble = [f"{path}: {error.strerror or error}"]
        for problem in file.trouble:
            logger().error("a list is not taken: its old content stays", list=key, problem=problem)
    return fresh


def _origin(
    kind: str,
    nets: tuple[str, ...] | list[str],
    *,
    file: str | None = None,
    name: str | None = None,
    ttl: float | None = None,
    age: float | None = None,
    trouble: str = "",
) -> dict[str, object]:
    return {
        "from": kind,
        "file": file,
        "name": name,
        "nets": list(nets),
        "ttl": ttl,
        "age": age,
        "trouble": trouble or None,
    }
