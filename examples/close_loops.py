"""Close loops: a drive's odometry drifts, places found again correct it, with GTSAM.

    pip install 'tatvpr-edge[build,slam]'
    tatvpr-edge build --board host --output host
    python examples/close_loops.py host loops
    evo_ape tum loops/truth.tum loops/corrected.tum     # where evo is installed

In: an artifact for this machine, and the drive that is shipped: a lap and a half through a rendered
map that no training saw, with odometry that makes each step 3 % too long and turns 0.3 degrees a
metre without noticing. Out: three trajectories as evo reads them (TUM: time x y z qx qy qz qw), and
a picture. On a robot of yours the frames and the odometry come from it, and `truth` is unknown.
"""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge import build_map
from tatvpr_edge.mapping import calibrate_map, find_poses, frame_files, read_frame
from tatvpr_edge.runtime import Closure, Localizer, LoopCloser, MapWriter
from tatvpr_edge.spec.errors import TatvprError, UsageError
from tatvpr_edge.zoo import ZOO

try:
    import gtsam
except ImportError:
    sys.exit("error: the pose graph needs GTSAM: pip install 'tatvpr-edge[slam]'")

#: The robot drives at a metre a second.
FRAME_S = 0.8
#: How sure a step of odometry is: metres ahead and aside, and radians; its errors add up, so that
#: they are taken larger than the noise of one step.
STEP = gtsam.noiseModel.Diagonal.Sigmas(np.array([0.05, 0.05, 0.02]))
#: A place that is found again lies within a step, and looks the same way; now and then a closure is
#: false, which a robust loss survives.
AGAIN = gtsam.noiseModel.Robust.Create(
    gtsam.noiseModel.mEstimator.Huber.Create(1.345),
    gtsam.noiseModel.Diagonal.Sigmas(np.array([0.5, 0.5, 0.1])),
)


def calibrated_map(localizer: Localizer, path: Path) -> Path:
    """A map whose answers are judged: of other places, with frames that ask for them."""
    # Of single views, as the drive's own map is: its scores are judged alike.
    frames = frame_files(ZOO / "places" / "gallery")
    build_map(localizer, frames, path, bands=[(1.0, 1.0)], views=False)
    calibrate_map(localizer, path, ZOO / "places" / "queries", ks=(1.0,))  # as it drives
    return path


def close_loops(
    artifact: Path, drive: Path, odometry: NDArray[np.float64], output: Path
) -> list[tuple[int, int, Closure]]:
    """(frame, frame that was there before, closure) of each loop; the map grows in ``output``."""
    found = []
    with Localizer(artifact, k=1.0) as localizer:
        judged = calibrated_map(localizer, output / "calibrated.placemap")
        grown = output / "drive.placemap"
        MapWriter(grown, localizer, like=judged).close()
        localizer.map = grown
        closer = LoopCloser(localizer)
        for number, file in enumerate(frame_files(drive)):
            step = closer.step(
                read_frame(file.path),
                odometry[number],
                tag=str(number),
                time_s=1e9 + FRAME_S * number,
            )
            if step.closure is not None:
                found.append((number, int(step.closure.tag), step.closure))
    return found


def corrected(
    odometry: NDArray[np.float64], loops: list[tuple[int, int, Closure]]
) -> NDArray[np.float64]:
    """(x, y, heading) [N, 3] of the pose graph's best answer."""
    poses = [gtsam.Pose2(x, y, heading(row)) for row in odometry for x, y in [row[:2]]]
    graph, guess = gtsam.NonlinearFactorGraph(), gtsam.Values()
    fixed = gtsam.noiseModel.Diagonal.Sigmas(np.full(3, 1e-6))
    graph.add(gtsam.PriorFactorPose2(0, poses[0], fixed))
    for number, (before, now) in enumerate(pairwise(poses)):
        graph.add(gtsam.BetweenFactorPose2(number, number + 1, before.between(now), STEP))
    for now, then, _ in loops:
        graph.add(gtsam.BetweenFactorPose2(then, now, gtsam.Pose2(), AGAIN))
    for number, pose in enumerate(poses):
        guess.insert(number, pose)
    best = gtsam.LevenbergMarquardtOptimizer(graph, guess).optimize()
    answers = [best.atPose2(number) for number in range(len(poses))]
    return np.array([(pose.x(), pose.y(), pose.theta()) for pose in answers])


def heading(pose: NDArray[np.float64]) -> float:
    """Radians about z of a pose (x y z qx qy qz qw)."""
    qx, qy, qz, qw = pose[3:]
    return math.atan2(2 * (qw * qz + qx * qy), 1 - 2 * (qy * qy + qz * qz))


def rms_m(path: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Root mean square of how far a path is from the true one, in metres; both begin alike."""
    return float(np.sqrt(((path[:, :2] - truth[:, :2]) ** 2).sum(1).mean()))


def write_tum(path: Path, planar: NDArray[np.float64]) -> None:
    """A trajectory as evo reads it."""
    lines = [
        f"{FRAME_S * number:.3f} {x:.6f} {y:.6f} 0 0 0 {math.sin(t / 2):.9f} {math.cos(t / 2):.9f}"
        for number, (x, y, t) in enumerate(planar)
    ]
    path.write_text("\n".join(lines) + "\n")


def draw(
    path: Path, paths: dict[str, NDArray[np.float64]], loops: list[tuple[int, int, Closure]]
) -> None:
    """The paths, and a line for each loop between the two frames it joins."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7))
    axes = figure.subplots()
    for name, planar in paths.items():
        axes.plot(planar[:, 0], planar[:, 1], "k:" if name == "truth" else "-", label=name)
    believed = paths["odometry"]
    for now, then, _ in loops:
        axes.plot(*believed[[now, then], :2].T, "g-", linewidth=0.5, alpha=0.6)
    axes.set(xlabel="x, metres", ylabel="y, metres", aspect="equal")
    axes.set_title(f"{len(loops)} loops closed (green)")
    axes.legend()
    figure.savefig(path, dpi=120)


def main(arguments: list[str]) -> int:
    """Run on the command line's words; 0, or 1 after one line on standard error."""
    if len(arguments) != 2:
        print("usage: python examples/close_loops.py ARTIFACT OUTPUT", file=sys.stderr)
        return 2
    artifact, output = map(Path, arguments)
    drive = ZOO / "drive"
    try:
        if output.exists() and not (output.is_dir() and not any(output.iterdir())):
            raise UsageError(f"{output} exists: name a new folder")
        output.mkdir(parents=True, exist_ok=True)
        files = frame_files(drive)
        odometry = find_poses(drive, files, drive / "odometry.csv").values
        truth = find_poses(drive, files).values
        loops = close_loops(artifact, drive, odometry, output)
    except (TatvprError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    paths = {
        name: np.array([(*row[:2], heading(row)) for row in poses])
        for name, poses in (("truth", truth), ("odometry", odometry))
    }
    paths["corrected"] = corrected(odometry, loops)
    for name, planar in paths.items():
        write_tum(output / f"{name}.tum", planar)
    draw(output / "loops.png", paths, loops)
    before, after = (rms_m(paths[name], paths["truth"]) for name in ("odometry", "corrected"))
    print(f"{len(files)} frames, {len(loops)} loops closed; see {output / 'loops.png'}")
    print(f"trajectory error {before:.2f} m by odometry alone, {after:.2f} m with loops (rms)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
