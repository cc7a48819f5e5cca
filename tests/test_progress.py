"""How far a run is: a bar on a terminal, plain lines elsewhere, and no bar in any log."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from bids_app.machine import progress

SCRIPT = """
import logging, sys, time
from pathlib import Path
from bids_app.machine.process import log_to
from bids_app.machine.progress import told
log_to(Path(sys.argv[1]), 0)
for n in told(iter(range(4)), 4, "scans", lambda n: n == 1):
    logging.getLogger("bids_app").info("scan %d is there", n)
    time.sleep(0.15)
"""


def test_plain_lines_come_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = iter(range(0, 1000, 12)), []
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    # at the logger's own mouth: which handlers other tests left on the tree of loggers does not matter here
    monkeypatch.setattr(progress.log, "info", lambda form, *words: said.append(form % words))
    assert list(progress.told(iter("abcdefgh"), 8, "scans", lambda each: each == "b")) == list("abcdefgh")
    assert said == ["scans: 3 of 8, 1 failed, about 60 s left", "scans: 6 of 8, 1 failed, about 24 s left"]


def test_a_terminal_has_a_bar_and_the_log_file_none(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / "log.txt")], stderr=slave, stdout=slave)
    os.close(slave)
    seen = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(master)
    assert process.wait() == 0
    shown = seen.decode()
    assert "scans:" in shown and "4/4" in shown and "1 failed" in shown
    assert shown.count("\r\x1b[K") == 4  # every line of the log clears the bar first
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert len(lines) == 4 and not any("\r" in line or "\x1b" in line or "%|" in line for line in lines)


def test_captured_output_has_no_bar(tmp_path: Path) -> None:
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "log.txt")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert len(done.stderr.splitlines()) == 4 and "\r" not in done.stderr and "|" not in done.stderr
