"""A small authoritative name server on loopback: real DNS on the wire, UDP and TCP, whose zone a test changes."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Records = dict[tuple[str, str], tuple[int, list[str]]]  # (name, type) -> TTL, what is written in a zone file


class NameServer:
    """Answers from `zone`.

    `fails` makes every answer SERVFAIL, `refuses` those of one type, `silent` none; `short` cuts what comes by UDP.
    """

    def __init__(self, zone: Records | None = None, port: int = 0) -> None:
        self.zone: Records = zone or {}
        self.fails = self.silent = self.short = False
        self.refuses = ""
        self.asked: list[tuple[str, str]] = []
        self._tcp = socket.create_server(("127.0.0.1", port))
        self.port = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._serve_udp, self._serve_tcp)
        ]

    def reply(self, wire: bytes, *, udp: bool) -> bytes | None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = (
            question.name.to_text(omit_final_dot=True).lower(),
            dns.rdatatype.to_text(question.rdtype),
        )
        self.asked.append((name, kind))
        if self.silent:
            return None
        answer = dns.message.make_response(query, recursion_available=True)
        if self.fails or kind == self.refuses:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif self.short and udp:
            answer.flags |= dns.flags.TC
        else:
            while (name, "CNAME") in self.zone:
                ttl, [target] = self.zone[name, "CNAME"]
                answer.answer.append(dns.rrset.from_text(f"{name}.", ttl, "IN", "CNAME", f"{target}."))
                name = target
            if (name, kind) in self.zone:
                ttl, texts = self.zone[name, kind]
                answer.answer.append(dns.rrset.from_text(f"{name}.", ttl, "IN", kind, *texts))
            elif not any(known == name for known, _ in self.zone):
                answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer.to_wire()

    def _serve_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, client = self._udp.recvfrom(4096)
                if not wire:  # shut down
                    return
                answer = self.reply(wire, udp=True)
                if answer:
                    self._udp.sendto(answer, client)

    def _serve_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._tcp.accept()
                with connection, connection.makefile("rb") as stream:
                    size = int.from_bytes(stream.read(2), "big")
                    answer = self.reply(stream.read(size), udp=False)
                    if answer:
                        connection.sendall(len(answer).to_bytes(2, "big") + answer)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Be gone: what is asked now gets no answer."""
        for end in (self._udp, self._tcp):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join(5)
