"""From root to a user of our own that may change the firewall and nothing else: `mailward run --user NAME`.

For containers and plain starts.  systemd does the same by packaging/mailward.service before we begin.  The rules are
those of capabilities(7), the numbers those of linux/capability.h and linux/prctl.h.  Every step is checked, and in the
end the kernel is asked what is left: where that is anything but what was meant, nothing is started.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pwd
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from guard.app._place import REFUSED, WRONG, CannotRunError
from guard.firewall.permission import CAPABILITIES, RIGHTS

_CHANGE: Final = {
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
}  # what becoming somebody else takes; given up with the rest
_STATUS: Final = Path("/proc/self/status")
_SETS: Final = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")

_SET_KEEPCAPS, _CAPBSET_READ, _CAPBSET_DROP, _SET_NO_NEW_PRIVS, _CAP_AMBIENT = 8, 23, 24, 38, 47
_AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 2, 4
_CAPABILITY_VERSION_3: Final = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]  # its arguments are longs, and it is variadic


Folder = tuple[Path, int]  # with the mode that it is made with


def become(name: str, folders: Sequence[Folder], backend: str) -> None:
    """Be the user `name` for good, with the capabilities of the firewall's backend alone: CAP_NET_ADMIN, for nftables.

    `folders` are made for that user.  Call it before the first thread and before anything foreign is read.  Raises
    `CannotRunError`; the process is good for nothing then but its end.
    """
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise CannotRunError(
            REFUSED,
            f"--user {name}: there is no such user; make one: "
            f"useradd --system --user-group --no-create-home --shell /usr/sbin/nologin --groups adm {name}",
        ) from None
    if user.pw_uid == 0:
        raise CannotRunError(WRONG, f"--user {name}: that is root; name a user of mailward's own")
    if os.geteuid() == 0:
        rights = {right: CAPABILITIES[right] for right in RIGHTS[backend]}
        keep = list(rights.values())
        _begin(name, rights)
        for folder in folders:
            _make(folder, user)
        try:
            _drop(user, keep)
        except OSError as error:
            raise CannotRunError(REFUSED, f"--user {name}: {error.filename or error.strerror}") from None
        _verify(user, sum(1 << capability for capability in keep))
    elif os.geteuid() != user.pw_uid:
        raise CannotRunError(REFUSED, f"--user {name}: only root can become another user")
    _usable(user, folders)


def _begin(name: str, rights: Mapping[str, int]) -> None:
    """See that what follows can be done at all: the rights are there, and no thread would keep them."""
    status = _status()
    needed = {**_CHANGE, **rights}
    missing = [f"CAP_{right}" for right, n in needed.items() if not int(status["CapEff"], 16) >> n & 1]
    if missing:
        raise CannotRunError(
            REFUSED,
            f"--user {name}: {', '.join(missing)} missing; a container needs "
            f"cap_add: [{', '.join(needed)}] beside cap_drop: [ALL]",
        )
    if status["Threads"] != "1":  # capset(2) and prctl(2) are one thread's
        raise CannotRunError(REFUSED, f"--user {name}: {status['Threads']} threads run already (a defect)")


def _make(folder: Folder, user: pwd.struct_passwd) -> None:
    """Make a folder for the user.  One that is there stays as it is: it may be /tmp, or a link that somebody laid."""
    path, mode = folder
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.mkdir(mode=mode)
    except FileExistsError:
        return
    except OSError as error:
        raise CannotRunError(REFUSED, f"{path}: {error.strerror}; {_remedy(folder, user)}") from None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(descriptor, user.pw_uid, user.pw_gid)
        finally:
            os.close(descriptor)
    except OSError as error:  # without CAP_CHOWN root cannot, either; as it was, the next start says the same
        with contextlib.suppress(OSError):
            path.rmdir()
        raise CannotRunError(REFUSED, f"{path}: {error.strerror}; {_remedy(folder, user)}") from None


def _remedy(folder: Folder, user: pwd.struct_passwd) -> str:
    path, mode = folder
    return (
        f"make it for {user.pw_name}, in a container's image as well: "
        f"install -d -m {mode:o} -o {user.pw_uid} -g {user.pw_gid} {path}"
    )


def _drop(user: pwd.struct_passwd, keep: Sequence[int]) -> None:
    """Change every id and every set of capabilities.  The order matters: each step needs what a later one takes."""
    _prctl("PR_SET_NO_NEW_PRIVS", _SET_NO_NEW_PRIVS, 1)
    for capability in range(64):
        try:
            held = _prctl("PR_CAPBSET_READ", _CAPBSET_READ, capability)
        except OSError as error:
            if error.errno != errno.EINVAL or capability <= max(CAPABILITIES.values()):
                raise
            break  # past the last one that this kernel knows
        if held and capability not in keep:
            _prctl("PR_CAPBSET_DROP", _CAPBSET_DROP, capability)
    os.setgroups(os.getgrouplist(user.pw_name, user.pw_gid))
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    _prctl("PR_SET_KEEPCAPS", _SET_KEEPCAPS, 1)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    _prctl("PR_SET_KEEPCAPS", _SET_KEEPCAPS, 0)
    _prctl("PR_CAP_AMBIENT_CLEAR_ALL", _CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    _capset(sum(1 << capability for capability in keep))
    for capability in keep:  # ambient: what we execute (iptables' tools) has it too
        _prctl("PR_CAP_AMBIENT_RAISE", _CAP_AMBIENT, _AMBIENT_RAISE, capability)


def _prctl(name: str, *arguments: int) -> int:
    result: int = _libc.prctl(*arguments, *[0] * (5 - len(arguments)))
    if result < 0:
        _fail(f"{name} {arguments[-1]}")
    return result


def _capset(mask: int) -> None:
    """Make `mask` the effective, permitted and inheritable capabilities; the second half are numbers 32 to 63."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = ctypes.create_string_buffer(struct.pack("=6I", low, low, low, high, high, high))
    if _libc.capset(header, data) != 0:
        _fail("capset")


def _fail(call: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), f"{call}: {os.strerror(number)}")


def _verify(user: pwd.struct_passwd, mask: int) -> None:
    """Ask the kernel whether all is as meant."""
    status = _status()
    expected = {
        "Uid": {user.pw_uid},  # real, effective, saved and that of the file system
        "Gid": {user.pw_gid},
        "Groups": set(os.getgrouplist(user.pw_name, user.pw_gid)),
        "NoNewPrivs": {1},
    }
    wrong = [key for key, numbers in expected.items() if {*map(int, status[key].split())} != numbers]
    wrong += [key for key in _SETS if int(status[key], 16) != mask]
    if wrong:
        told = ", ".join(f"{key} {status[key]}" for key in wrong)
        raise CannotRunError(REFUSED, f"--user {user.pw_name}: the rights are not as meant: {told}")


def _usable(user: pwd.struct_passwd, folders: Sequence[Folder]) -> None:
    """See that the user can read the program and write to its folders, while there is somebody to tell."""
    for place in (sys.prefix, os.path.dirname(__file__)):  # noqa: PTH120 - a string is all it needs
        if not os.access(place, os.R_OK | os.X_OK):
            raise CannotRunError(
                REFUSED,
                f"{place}: {user.pw_name} may not read it; install mailward elsewhere, such as /opt/mailward",
            )
    for path, mode in folders:
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise CannotRunError(
                REFUSED,
                f"{path}: {user.pw_name} may not write there; "
                f"chown -R {user.pw_name}: {path}, or {_remedy((path, mode), user)}",
            )


def _status() -> dict[str, str]:
    """Return the kernel's word about this process, proc(5)."""
    try:
        lines = _STATUS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise CannotRunError(REFUSED, f"{_STATUS}: {error.strerror}; mount /proc") from None
    return {key: text.strip() for key, _, text in (line.partition(":") for line in lines)}
