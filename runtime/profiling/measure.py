"""Runs an artifact at each setting and writes down what it took, and under which conditions.

Out: one JSON document (see ``profile_artifact``), from which the manifest's profile, the CSV, the
trace and the report are made. Latency is from the frame in memory to the descriptor; the search in
a map is not part of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.frame import check_frame, golden_pixels
from tatvpr_edge.runtime.localizer import Localizer
from tatvpr_edge.runtime.profiling.energy import Energy, energy_of_run, integrate_mj, news_of
from tatvpr_edge.runtime.profiling.runs import Plan, Run, Setting
from tatvpr_edge.runtime.profiling.statistics import latency_of
from tatvpr_edge.runtime.telemetry import (
    Condition,
    Sampler,
    TimedPower,
    Tree,
    busy_core_s,
    read_conditions,
)
from tatvpr_edge.runtime.telemetry.battery import BatterySource
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.manifest import Manifest

DOCUMENT_FORMAT = "tatvpr-edge profile 1"
Progress = Callable[[str, int, int], None]

_MAX_EVENTS = 300  # of each setting, in the trace
_READINGS = 8  # of power in a run; integrating needs five
_LONGEST_S = 100.0  # the power history reaches back two minutes
_SEES_S = 10.0  # so long at most a sensor may take to see a load that began
_SETTLES_S = 0.3  # and so long at least, of which it tells a mean of before and after


def files_hash(manifest: Manifest) -> str:
    """SHA-256 over the files of an artifact: the same before and after it was profiled."""
    entries = sorted((entry.path, entry.sha256) for entry in manifest.files)
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def profile_artifact(
    path: str | Path,
    plan: Plan | None = None,
    sampler: Sampler | None = None,
    progress: Progress = lambda what, done, of: None,
    root: str = "/",
    backend: str | None = None,
    threads: int = 0,
) -> dict[str, Any]:
    """Measures an artifact on this machine, with its golden frames in turn.

    Args:
        path: the artifact's folder.
        sampler: power source; found by itself under ``root`` when None.
        progress: called with what is done now, and how far it is.

    Returns:
        ``{"format", "artifact": {...}, "device": {...}, "method": {...}, "points": [...],
        "power": [[time_s, mW or null], ...], "events": [...]}``, ready for JSON. Times in seconds
        from the start.

    Raises:
        ArtifactError, UsageError: as `Localizer`.
    """
    plan = plan or Plan()
    tree = Tree(root)
    with Localizer(path, backend=backend, threads=threads) as localizer:
        artifact = localizer.artifact
        pictures = [golden_pixels(artifact, one) for one in artifact.manifest.golden.frames]
        if not pictures:
            raise UsageError("the artifact carries no golden frame: name a folder of frames")
        own = Sampler(interval_s=0.1, root=root) if sampler is None else sampler
        own.start()
        own.ready()
        try:
            return _Profiler(localizer, plan, own, pictures, progress, tree).document()
        finally:
            if sampler is None:
                own.stop()


class _Profiler:
    """One profile in the making."""

    def __init__(
        self,
        localizer: Localizer,
        plan: Plan,
        sampler: Sampler,
        frames: list[NDArray[np.uint8]],
        progress: Progress,
        tree: Tree,
    ) -> None:
        self._localizer = localizer
        self._plan = plan
        self._sampler = sampler
        self._frames = frames
        self._progress = progress
        self._tree = tree
        self._zero_s = time.monotonic()
        self._power: list[list[float | None]] = []
        self._sources: dict[str, None] = {}  # of power, in their order
        self._events: list[dict[str, Any]] = []

    def document(self) -> dict[str, Any]:
        """Measures everything."""
        settings = self._plan.settings
        conditions = read_conditions(self._tree)
        readable = self._power_is_readable()
        steps = len(settings) + 2
        self._progress("idle", 0, steps)
        idle_before = self._idle_mw() if readable else None
        measured = []
        for n, setting in enumerate(settings):
            self._progress(setting.text(), n + 1, steps)
            measured.append(self._measure(setting, readable))
        self._progress("idle", steps - 1, steps)
        idle_after = self._idle_mw() if readable else None
        idle_mw, idle_note = _idle(idle_before, idle_after)
        if readable and len(self._sources) > 1:  # what one covers says nothing of the other
            came = ", then by ".join(self._sources)
            idle_mw, idle_note = None, f"power was told by {came}: no energy is known"
        points = [self._point(*one, idle_mw=idle_mw, readable=readable) for one in measured]
        self._progress("done", steps, steps)
        artifact = self._localizer.artifact
        manifest = artifact.manifest
        total = self._sampler.latest().total
        return {
            "format": DOCUMENT_FORMAT,
            "artifact": {
                "model": manifest.model.name,
                "model_hash": manifest.model.hash,
                "board": manifest.board,
                "files_hash": files_hash(artifact.manifest),
                "kernels": self._kernels(),
                "backend": self._localizer.backend.name,
            },
            "device": {
                **conditions.as_json(),
                "power_source": f"{total.source} {total.name}" if readable else None,
                "power_covers": total.covers if readable else None,
                "power_note": "" if readable else f"latency only: {self._why_no_power()}",
                "idle_mw": idle_mw,
                "idle_note": idle_note,
            },
            "method": {
                "what": "frame in memory to descriptor, without the search in a map",
                "warmup": self._plan.warmup,
                "repeats": self._plan.repeats,
                "frames": [list(frame.shape) for frame in self._frames],
            },
            "points": points,
            "power": self._power,
            "events": self._events,
        }

    # -- measuring ----------------------------------------------------------------------------

    def _power_is_readable(self) -> bool:
        """Whether a total comes within a few passes (an energy counter needs two)."""
        for _ in range(12):
            if self._sampler.latest().total.ok:
                return True
            if not self._sampler.discovery.sources:
                return False
            time.sleep(max(0.05, self._sampler.effective_interval_s / 2))
        return False

    def _why_no_power(self) -> str:
        total = self._sampler.latest().total
        return total.text() if total.source != "none" else f"no power source ({total.detail})"

    def _idle_mw(self) -> float | None:
        if self._plan.idle_s <= 0:
            return None
        begun_s = time.monotonic()
        while not self._sees(begun_s):
            time.sleep(0.02)
        start_s = end_s = time.monotonic()
        while end_s - start_s < self._lasting_s(self._plan.idle_s):
            time.sleep(0.02)
            end_s = time.monotonic()
        known = self._readings(self._sampler.history())
        energy = integrate_mj(known, start_s, end_s, self._gap_s())
        self._keep_power(start_s, end_s)
        return None if isinstance(energy, str) else energy / (end_s - start_s)

    def _lasting_s(self, wished_s: float) -> float:
        """``wished_s``, or as long as enough readings take of a sensor that costs much (a Raspberry
        Pi's command is asked once in seconds); the sampler finds its interval meanwhile."""
        return min(max(wished_s, _READINGS * self._sampler.effective_interval_s), _LONGEST_S)

    def _sees(self, begun_s: float) -> bool:
        """Whether power was read since a load began or ended, and is believed (no fresh jump)."""
        total = self._sampler.latest().total
        seen = total.taken_s > begun_s + _SETTLES_S and total.condition is not Condition.JUMP
        return seen or time.monotonic() - begun_s > _SEES_S

    def _gap_s(self) -> float:
        """How far apart two readings may lie, with power known between them."""
        return max(1.0, 4.0 * self._sampler.effective_interval_s)

    def _readings(self, points: list[TimedPower]) -> list[TimedPower]:
        """``points``; of a fuel gauge, which shows one figure for up to a minute, its news."""
        gauge = self._sampler.latest().total.source == BatterySource.name
        return news_of(points) if gauge else points

    def _measure(self, setting: Setting, readable: bool) -> tuple[Setting, Run, str, int]:
        attempts = 0
        while True:
            attempts += 1
            run = self._run(setting, readable)
            invalid = run.invalid()
            self._keep_power(run.start_s, run.end_s)
            if not invalid or attempts >= self._plan.attempts:
                self._note_events(setting, run)
                return setting, run, invalid, attempts

    def _run(self, setting: Setting, readable: bool) -> Run:
        localizer, frames = self._localizer, self._frames
        localizer.k, localizer.tokens = setting.k, setting.tokens
        begun_s, made = time.monotonic(), 0
        while made < self._plan.warmup or (readable and not self._sees(begun_s)):
            localizer.describe(frames[made % len(frames)])
            made += 1
        before, hot_before = read_conditions(self._tree), self._sampler.latest().hottest
        seconds = self._plan.seconds
        starts_s: list[float] = []
        latencies_ms: list[float] = []
        busy_s, own_s = busy_core_s(self._tree), time.process_time()
        start_s = time.monotonic()
        while len(starts_s) < self._plan.repeats or time.monotonic() - start_s < seconds:
            if time.monotonic() - start_s > _LONGEST_S and len(starts_s) >= 10:
                break
            starts_s.append(time.monotonic())  # first, so that spans of a trace never overlap
            begin = time.perf_counter()
            localizer.describe(frames[len(starts_s) % len(frames)])
            latencies_ms.append((time.perf_counter() - begin) * 1e3)
            if readable:
                seconds = max(self._plan.seconds, self._lasting_s(self._plan.power_seconds))
        end_s = time.monotonic()
        others, own_s = None, time.process_time() - own_s
        busy_after_s = busy_core_s(self._tree)
        if busy_s is not None and busy_after_s is not None:
            others = others_cores(busy_after_s - busy_s - own_s, end_s - start_s)
        after, hot_after = read_conditions(self._tree), self._sampler.latest().hottest
        return Run(
            start_s,
            end_s,
            starts_s,
            latencies_ms,
            before,
            after,
            hot_before,
            hot_after,
            others,
        )

    def _keep_power(self, start_s: float, end_s: float) -> None:
        self._sources[self._sampler.latest().total.source] = None
        last_s = self._power[-1][0] if self._power else None
        for point in self._sampler.history():
            at_s = point.time_s - self._zero_s
            if start_s <= point.time_s <= end_s and (last_s is None or at_s > last_s):
                self._power.append([round(at_s, 4), point.power_mw])

    def _note_events(self, setting: Setting, run: Run) -> None:
        for start_s, ms in list(zip(run.starts_s, run.latencies_ms, strict=True))[:_MAX_EVENTS]:
            self._events.append(
                {
                    "name": f"describe {setting.text()}",
                    "start_s": round(start_s - self._zero_s, 9),
                    "ms": round(ms, 6),
                    "k": setting.k,
                    "tokens": setting.tokens,
                }
            )

    def _layers(self, setting: Setting) -> list[dict[str, Any]]:
        """Milliseconds of every layer: the median over a few traced queries."""
        library = getattr(self._localizer.backend, "library", None)
        if not self._plan.layers or library is None:
            return []

        times: dict[str, list[float]] = {}
        frame = check_frame(self._frames[0], False)
        first_s: dict[str, float] = {}
        for n in range(5):
            begun: dict[str, float] = {}
            spent: dict[str, float] = {}

            def trace(
                layer: str,
                begin: bool,
                begun: dict[str, float] = begun,
                spent: dict[str, float] = spent,
            ) -> None:
                now = time.perf_counter()
                if begin:
                    begun[layer] = now
                else:
                    spent[layer] = spent.get(layer, 0.0) + (now - begun[layer]) * 1e3

            library.describe(frame, setting.k, setting.tokens, trace=trace)
            start = min(begun.values(), default=0.0)
            if n == 0:
                first_s = {layer: at - start for layer, at in begun.items()}
            for layer, ms in spent.items():
                times.setdefault(layer, []).append(ms)
        return [
            {
                "name": layer,
                "start_ms": round(first_s.get(layer, 0.0) * 1e3, 4),
                "ms": round(float(np.median(values)), 4),
            }
            for layer, values in times.items()
        ]

    # -- writing down -------------------------------------------------------------------------

    def _point(
        self,
        setting: Setting,
        run: Run,
        invalid: str,
        attempts: int,
        idle_mw: float | None,
        readable: bool,
    ) -> dict[str, Any]:
        energy = (
            energy_of_run(
                self._readings([TimedPower(at or 0.0, mw) for at, mw in self._power]),
                run.start_s - self._zero_s,
                run.end_s - self._zero_s,
                len(run.latencies_ms),
                idle_mw,
                self._gap_s(),
            )
            if readable
            else Energy(None, None, None, "no power source is readable")
        )
        return {
            "k": setting.k,
            "tokens": setting.tokens,
            "latency_ms": latency_of(run.latencies_ms).as_json(),
            "energy_mj": energy.net_mj,
            "energy_gross_mj": energy.gross_mj,
            "power_mw": energy.mean_mw,
            "energy_note": energy.note,
            "macs": self._macs(setting),
            "recall": None,
            "valid": not invalid,
            "invalid": invalid,
            "busy": bool(invalid) and run.busy(),
            "attempts": attempts,
            "others_cores": run.others_cores,
            "clock_mhz": [list(run.before.clock_mhz), list(run.after.clock_mhz)],
            "temperature_c": [run.hot_before.value, run.hot_after.value],
            "layers": self._layers(setting),
        }

    def _kernels(self) -> str | None:
        """The kernel variant in use, where the backend has such."""
        library = getattr(self._localizer.backend, "library", None)
        if library is None:
            return None
        return str(library.kernels or library.usable_kernels()[0])

    def _macs(self, setting: Setting) -> int | None:
        for point in self._localizer.artifact.manifest.compute:
            if abs(point["k"] - setting.k) < 1e-9 and abs(point["tokens"] - setting.tokens) < 1e-9:
                return int(point["macs"])
        return None


def others_cores(busy_s: float, lasted_s: float) -> float:
    """How many cores other programs kept busy, which together took ``busy_s`` in ``lasted_s``: at
    least, because a core's time is told in ticks, so that in a short run each may be one off."""
    unsure_s = (os.cpu_count() or 1) / os.sysconf("SC_CLK_TCK")
    return max(0.0, busy_s - unsure_s) / lasted_s


def _idle(before: float | None, after: float | None) -> tuple[float | None, str]:
    """The idle board's power: the mean of before and after, if they agree."""
    if before is None or after is None:
        return None, "" if before is None and after is None else "idle power was readable only once"
    mean = 0.5 * (before + after)
    if abs(before - after) > 0.1 * mean:
        return mean, f"the idle board drew {before:.0f} mW before and {after:.0f} mW after the runs"
    return mean, ""
