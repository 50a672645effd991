"""Saving is atomic: whenever a process is killed while it saves, a whole ticket is at the path, an old or a new one."""

import subprocess
import sys
from pathlib import Path

SAVING = """
import os, random, signal, sys
import torch
torch.set_num_threads(1)
import supermask
from supermask import Architecture, convert, files, inspect, save, verify

path, rounds = sys.argv[1], int(sys.argv[2])
architecture = Architecture(name="mlp", arguments={"sizes": [40, 30, 3]})
networks = [convert(architecture.build(), seed).eval() for seed in range(3)]
whole = {save(network, path, architecture=architecture, encoding="raw").sha256 for network in networks}
assert len(whole) == 3

def forked(work):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reader)
            work(writer)
        finally:
            os._exit(1)
    os.close(writer)
    return child, os.fdopen(reader, "rb")

def died(child, lines):
    with lines:
        lines.read()
    status = os.waitpid(child, 0)[1]
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL

def found():
    assert verify(path).sha256 in whole
    return inspect(path).seed
"""
AT_EVERY_LINE = """
def saves_until(last):
    def save_one(out):
        left = last
        def trace(frame, event, arg):
            nonlocal left
            if frame.f_code.co_filename != files.__file__:
                return None
            if event == "line" and frame.f_code.co_name in ("write_atomically", "_sync_folder"):
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace
        sys.settrace(trace)
        save(networks[1], path, architecture=architecture, encoding="raw")
    return save_one

seeds = []
while True:
    save(networks[0], path, architecture=architecture, encoding="raw")
    if not died(*forked(saves_until(len(seeds) + 1))):
        break
    seeds.append(found())
assert found() == 1, "the last one saved to its end"
assert seeds == sorted(seeds) and {0, 1} == set(seeds), seeds
assert len(seeds) >= 10, "lines of write_atomically were met one by one"
"""
AT_RANDOM = """
def saves(out):
    number = 0
    while True:
        for call in (os.fsync, os.replace):
            def said(*args, call=call, **kwargs):
                os.write(out, b"in the middle\\n")
                return call(*args, **kwargs)
            setattr(os, call.__name__, said)
            save(networks[number % 3], path, architecture=architecture, encoding="raw")
            setattr(os, call.__name__, call)
            os.write(out, b"saved\\n")
            number += 1

generator = random.Random(8)
for _ in range(rounds):
    child, lines = forked(saves)
    for _ in range(generator.randrange(1, 16)):
        assert lines.readline().endswith(b"\\n")
    os.kill(child, signal.SIGKILL)
    assert died(child, lines)
    found()
"""


def test_killed_while_saving(tmp_path: Path) -> None:
    path = tmp_path / "t"
    program = SAVING + AT_EVERY_LINE + AT_RANDOM
    ran = subprocess.run(
        [sys.executable, "-c", program, str(path), "15"], capture_output=True, text=True, check=False, timeout=100
    )
    assert ran.returncode == 0, ran.stderr
    left = {p.name for p in tmp_path.iterdir()} - {"t"}
    assert left
    assert all(name.startswith(".t.") and name.endswith(".unfinished") for name in left)
