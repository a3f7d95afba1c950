"""Runs fuzz targets: ``python -m fuzz.run [--seconds 30] [--lanes 1] [TARGET ...]``.

In: nothing but the repository, clang and atheris (the extra ``fuzz``). C targets are built, seeds
are made, each target runs for so long, and what it found on its way is kept in
``build/fuzz/corpus``, so that the next run goes on from there. Out: a table of executions; exit
status 1 and the input's path where a target failed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fuzz import clang, seeds
from tatvpr_edge.spec.errors import ToolError

ROOT = seeds.ROOT
PLACE = ROOT / "build" / "fuzz"
C_TARGETS = {f"core-{name}": name for name in clang.TARGETS}
#: Longest inputs, in bytes: beyond these nothing new is read.
MOST_BYTES = {
    "core-map": 2048,
    "core-journal": 2048,
    "core-blob": 8_192,
    "core-frame": 512,
    "training": 16_384,
    "onnx": 65_536,
}
_USUAL_BYTES = 8192
#: So many times as long as asked for may CI's executions take, on a machine that is busy: CI has an
#: hour for everything.
_CI_PATIENCE = 2
#: What CI executes of a target, about what half a minute of a slow core gives: as many on every
#: machine, so that a fast one does not search where a slow one never came.
CI_EXECUTIONS = {
    "core-frame": 1_000_000,
    "core-blob": 800_000,
    "core-journal": 3_500_000,
    "core-map": 3_500_000,
    "map": 400_000,
    "journal": 15_000,
    "manifest": 300_000,
    "release-list": 1_400_000,
    "agent": 60_000,
    "onnx": 400_000,
    "telemetry": 200_000,
    "poses": 250_000,
    "board": 170_000,
    "training": 150_000,
}
#: A C target lives for microseconds: a short list of what was freed (that of one execution is far
#: shorter), and short traces of where memory came from.
_ASAN = "detect_leaks=1:quarantine_size_mb=4:malloc_context_size=8"
_EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_PROGRESS = re.compile(r"^#(\d+)\s", re.MULTILINE)
_WORD = re.compile(rb"[A-Za-z_][A-Za-z0-9_.-]{2,30}")
_MOST_WORDS = 400


@dataclass(frozen=True)
class Ran:
    """What came of one target."""

    name: str
    executions: int
    seconds: float
    failed: Path | None
    log: Path


def write_dictionary(name: str) -> Path:
    """The words of a target's seeds, for libFuzzer to put together anew."""
    words = {word for data in seeds.seeds_of(name).values() for word in _WORD.findall(data)}
    path = PLACE / f"{name}.dict"
    lines = [f'"{word.decode()}"' for word in sorted(words)[:_MOST_WORDS]]
    path.write_text("\n".join(["# words of the seeds", *lines, ""]))
    return path


def most_bytes(name: str) -> int:
    """The longest input of a target."""
    return MOST_BYTES.get(name, _USUAL_BYTES)


def python_targets() -> list[str]:
    """Names of the targets that atheris runs."""
    from fuzz.targets import TARGETS

    return list(TARGETS)


def command_of(name: str) -> list[str]:
    """What runs a target; a C target was built by then."""
    if name in C_TARGETS:
        return [str(PLACE / "bin" / C_TARGETS[name])]
    return [sys.executable, "-m", "fuzz.target", name]


def repeatable(name: str, seeds_folder: Path) -> tuple[list[str], list[str], dict[str, str]]:
    """What makes a run of CI say the same of a commit every time: words before the command,
    options, and environment.

    libFuzzer follows addresses and the order of a folder; Python follows its hashes. Where a
    container forbids fixed addresses, the rest still holds.
    """
    fixed = ["setarch", "-R"]
    try:
        allowed = subprocess.run([*fixed, "true"], capture_output=True).returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        print(f"{name}: addresses are not fixed here, so that a run may find other inputs")
    inputs = ",".join(str(path) for path in sorted(seeds_folder.iterdir()))
    listed = seeds_folder.with_suffix(".inputs")
    listed.write_text(inputs)
    options = ["-seed=1", f"-runs={CI_EXECUTIONS[name]}", f"-seed_inputs=@{listed}"]
    return fixed if allowed else [], options, {"PYTHONHASHSEED": "0"}


def run_target(name: str, command: list[str], seconds: int) -> Ran:
    """Run one target for so long; in CI for so many executions."""
    corpus, failures = PLACE / "corpus" / name, PLACE / "failures" / name
    for folder in (corpus, failures):
        folder.mkdir(parents=True, exist_ok=True)
    log = PLACE / f"{name}.log"
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={most_bytes(name)}",
        f"-artifact_prefix={failures}/",
        # Seconds for one input: a parser that never ends is a fault, a machine that stalls is none.
        "-timeout=60",
        "-report_slow_units=60",
        "-rss_limit_mb=3000",
        "-print_final_stats=1",
        # Of a C target it would halve the executions.
        f"-use_value_profile={int(name not in C_TARGETS)}",
        "-reload=0",
        f"-dict={write_dictionary(name)}",
    ]
    before_it: list[str] = []
    environment = {**os.environ, "ASAN_OPTIONS": _ASAN, "PYTHONPATH": str(ROOT)}
    seeds_folder = seeds.write_seeds(name, PLACE / "seeds")
    places = [str(corpus)]
    if "CI" in os.environ:
        before_it, more, fixed = repeatable(name, seeds_folder)
        options = [*options, f"-max_total_time={_CI_PATIENCE * seconds}", *more]
        environment = {**environment, **fixed}
    else:
        places.append(str(seeds_folder))
    before, started = set(failures.iterdir()), time.monotonic()
    with log.open("wb") as sink:
        done = subprocess.run(
            [*before_it, *command, *options, *places],
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
        )
    text = log.read_text(errors="replace")
    counts = [int(n) for n in (_EXECUTED.findall(text) or _PROGRESS.findall(text))]
    new = sorted(set(failures.iterdir()) - before)
    failed = None if done.returncode == 0 else new[0] if new else log
    return Ran(name, counts[-1] if counts else 0, time.monotonic() - started, failed, log)


def main() -> int:
    """Run the targets; exit status 1 where one failed."""
    names = [*C_TARGETS, *python_targets()]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    parser.add_argument("--lanes", type=int, default=1, help="targets that run at the same time")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(names))
    arguments = parser.parse_args()
    if arguments.seconds < 1 or arguments.lanes < 1:  # libFuzzer takes no seconds as for ever
        parser.error("--seconds and --lanes are whole numbers from 1 up")
    chosen = arguments.targets or names
    if unknown := set(chosen) - set(names):
        parser.error(f"no target {', '.join(sorted(unknown))}: there are {', '.join(names)}")
    try:
        clang.build([C_TARGETS[n] for n in chosen if n in C_TARGETS], PLACE / "bin")
    except ToolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

    def work(name: str) -> Ran:
        ran = run_target(name, command_of(name), arguments.seconds)
        said = "ok" if ran.failed is None else f"FAILED on {ran.failed.relative_to(ROOT)}"
        if ran.failed is None and "CI" in os.environ and ran.executions < CI_EXECUTIONS[name]:
            said += f", but time ended it before {CI_EXECUTIONS[name]}"
        print(f"{name}: {ran.executions} executions in {ran.seconds:.0f} s, {said}", flush=True)
        return ran

    with ThreadPoolExecutor(arguments.lanes) as pool:
        results = list(pool.map(work, chosen))
    failed = [ran for ran in results if ran.failed is not None]
    print(f"{sum(ran.executions for ran in results)} executions, {len(failed)} targets failed")
    for ran in failed:
        tail = ran.log.read_text(errors="replace").splitlines()[-40:]
        print("\n".join(["", f"{ran.name}:", *(f"  {line[:200]}" for line in tail)]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
