"""Answers rspamd's module `oletools`: a document in, what olevba finds in it out.

The protocol is rspamd's (lualib/lua_scanners/oletools.lua): `OLEFY/1.0`, header lines, an empty line, the document;
the client then shuts its side down.  The answer is olevba's JSON, and a tail that marks its end.  A document is the
attacker's: olevba runs as a process of its own, as nobody, with a limit on time, size and memory.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
from pathlib import Path
from typing import Final

PORT: Final = 10050
TAIL: Final = b"\t\n\n\t"
LARGEST: Final = 16 * 1024 * 1024  # bytes of a request
PATIENCE: Final = 20.0  # seconds that olevba has
AT_ONCE: Final = 4
MEMORY: Final = 512 * 1024 * 1024
OLEVBA: Final = str(Path(sys.executable).with_name("olevba"))

_turns = asyncio.Semaphore(AT_ONCE)


def fault(text: str) -> bytes:
    """Return an answer that says what is wrong."""
    return json.dumps([{"error": text}]).encode()


async def request(reader: asyncio.StreamReader) -> bytes:
    """Return all that the client sends.  Raises ValueError where it is too much."""
    data = bytearray()
    while piece := await asyncio.wait_for(reader.read(65536), 30):
        data += piece
        if len(data) > LARGEST:
            raise ValueError("the document is too large")
        if data == b"PING\n\n":
            break
    return bytes(data)


async def analysed(document: bytes) -> bytes:
    """Return olevba's JSON."""
    async with _turns:
        with tempfile.NamedTemporaryFile(prefix="olefy-") as file:
            file.write(document)
            file.flush()
            process = await asyncio.create_subprocess_exec(
                OLEVBA, "--analysis", "--json", "--loglevel", "error", file.name,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
            )  # fmt: skip
            try:
                found, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
            except TimeoutError:
                process.kill()
                await process.wait()
                return fault("olevba took too long")
    return found or fault(f"olevba ended with {process.returncode} and said nothing")


async def answer(data: bytes) -> bytes:
    """Return the answer to a request."""
    if data == b"PING\n\n":
        return b"PONG"
    head, gap, document = data.partition(b"\n\n")
    if not head.startswith(b"OLEFY/1.") or not gap:
        return fault("Protocol error") + TAIL
    found = await analysed(document)
    print(f"olefy: {len(document)} bytes, answer {len(found)} bytes", flush=True)
    return found + TAIL


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one client."""
    try:
        writer.write(await answer(await request(reader)))
        await writer.drain()
    except (OSError, TimeoutError, ValueError) as error:
        print(f"olefy: {error!r}", flush=True)
    finally:
        writer.close()


async def ping() -> int:
    """Return 0 where the server answers: the container's health check."""
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    writer.write(b"PING\n\n")
    pong = await asyncio.wait_for(reader.read(4), 3)
    writer.close()
    return 0 if pong == b"PONG" else 1


async def main() -> None:
    """Serve until the process is ended."""
    async with await asyncio.start_server(serve, None, PORT) as server:
        print(f"olefy: listening on {PORT}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1:] == ["--ping"]:
        sys.exit(asyncio.run(ping()))
    asyncio.run(main())
