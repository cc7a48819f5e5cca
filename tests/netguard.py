"""Watches for network access: every address that Python asks for or sends to, in this process or in others."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# interpreters import this file of their path at start: so worker processes are watched too
SITECUSTOMIZE = """
import os, sys
sys.path.insert(0, os.environ["NETGUARD_TESTS"])
import netguard
def _write(event, address):
    with open(os.path.join(os.environ["NETGUARD_LOG"], str(os.getpid())), "a") as log:
        log.write(f"{event} {address}\\n")
netguard.listen(_write)
_write("started", os.getpid())
"""
EVENTS = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")


def outside(event: str, arguments: tuple[object, ...]) -> str:
    """Return the address that an audit event would reach beyond this machine, or nothing."""
    if event not in EVENTS:
        return ""
    asked = arguments[1] if event in EVENTS[:3] else arguments[0]  # (socket, address) or (host, ...)
    host = asked[0] if isinstance(asked, tuple) and asked else asked
    if host is None or isinstance(host, (bytes, bytearray)) or not isinstance(host, str):
        return ""  # any address to listen on; no internet socket
    if host.startswith("/") or host in ("", "localhost"):
        return ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "" if host == os.uname().nodename else host
    return "" if address.is_loopback or address.is_unspecified else host


def listen(found: object) -> None:
    """Tell ``found`` (event, address) from now until the process ends: audit hooks cannot be taken away."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        address = outside(event, arguments)
        if address:
            found(event, address)  # type: ignore[operator]

    sys.addaudithook(hook)


_watchers: list[list[str]] = []


def _tell(event: str, address: str) -> None:
    for seen in _watchers:
        seen.append(f"{event} {address}")


@contextmanager
def watch() -> Iterator[list[str]]:
    """Yield the list that every access from this process beyond this machine is added to."""
    if not getattr(watch, "listening", False):
        listen(_tell)
        watch.listening = True  # type: ignore[attr-defined]
    seen: list[str] = []
    _watchers.append(seen)
    try:
        yield seen
    finally:
        _watchers.remove(seen)


def guarded(folder: Path) -> dict[str, str]:
    """Return environment variables under which every Python process writes what it sees to ``folder``/log."""
    (folder / "path").mkdir(parents=True)
    (folder / "log").mkdir()
    (folder / "path" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    here = str(Path(__file__).parent)
    return {"PYTHONPATH": str(folder / "path"), "NETGUARD_TESTS": here, "NETGUARD_LOG": str(folder / "log")}
