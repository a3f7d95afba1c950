"""How far correct builds of one model drift apart, per k: the table behind ``min_cosine``.

    python tools/drift.py MODEL [MODEL ...] [--frames 20] [--json]
    python tools/drift.py models/zoo/micro.onnx --write     # 200 frames, into models/zoo/micro.json

MODEL is a shipped model's name or an ONNX file. For each k the compiled model is compared, over
seeded frames, with ONNX Runtime on the same file and with itself under permuted reductions; the
smallest cosine of the latter gives the bound, 1 - 2 * (1 - smallest).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from given import as_json, one_line, tool_parser, whole

from tatvpr_edge.boards.loader import load
from tatvpr_edge.compilers import golden
from tatvpr_edge.compilers.build import find_model
from tatvpr_edge.compilers.checks import checked_graph
from tatvpr_edge.compilers.linux import compile_linux, open_library
from tatvpr_edge.compilers.tvm.lower import lower


def measure(onnx_file: Path, frames: int, write: bool) -> list[dict[str, Any]]:
    """One row for each setting of k and tokens."""
    lowered = lower(checked_graph(onnx_file), onnx_file.stem)
    size = lowered.matched.image_size
    points = golden.points_within((0.05, 1.0), lowered.matched.keeps_tokens)
    import onnxruntime  # after the compilers, which keep it from sending figures of its use

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(onnx_file), options, providers=["CPUExecutionProvider"]
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder, host = Path(scratch), load("host")
        core = open_library(compile_linux(lowered, host, folder / "core"), lowered)
        permuted_so = compile_linux(lowered, host, folder / "permuted", ("-DTATVPR_PERMUTED",))
        permuted = open_library(permuted_so, lowered)
        drift = golden.measure_drift(core, permuted, size, points, frames, _progress)
        if write:
            golden.write_drift(golden.model_card(onnx_file), lowered.model_hash, drift, frames)
        rows = []
        for point in drift:
            seen = []
            for seed in range(min(frames, 20)):
                frame = golden.synthetic_frame(seed, size, size)
                feed = {
                    "frame": frame,
                    "k": np.array(point.k, np.float32),
                    "tokens": np.array(point.tokens, np.float32),
                }
                wanted = np.asarray(session.run(["descriptor"], feed)[0])
                got = golden.describe(core, frame, point.k, point.tokens)
                seen.append(golden.cosine(got, wanted))
            rows.append(
                {
                    "model": onnx_file.stem,
                    "k": point.k,
                    "tokens": point.tokens,
                    "onnx_runtime_smallest": min(seen),
                    "onnx_runtime_mean": float(np.mean(seen)),
                    "permuted_smallest": point.smallest_cosine,
                    "frames": frames,
                    "min_cosine": point.min_cosine,
                }
            )
    return rows


def _progress(what: str, done: int, of: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{what}: {done}/{of}", end="\n" if done == of else "", file=sys.stderr)


@one_line
def main() -> int:
    """Print the table; exit status 1 where a model is unusable."""
    parser = tool_parser(__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--frames", type=whole(1), default=20, help="seeded frames (default 20)")
    parser.add_argument("--write", action="store_true", help="200 frames, into the card MODEL.json")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    frames = golden.DRIFT_FRAMES if arguments.write else arguments.frames
    rows = [r for m in arguments.models for r in measure(find_model(m), frames, arguments.write)]
    if arguments.json:
        print(as_json(rows))
        return 0
    print("model       k  tokens   ONNX Runtime        permuted core       bound")
    print("                       smallest     mean     smallest")
    for row in rows:
        setting = f"{row['model']:8} {row['k']:4g}  {row['tokens']:6g}"
        against = f"{row['onnx_runtime_smallest']:.6f} {row['onnx_runtime_mean']:.6f}"
        own = f"{row['permuted_smallest']:.6f}       {row['min_cosine']:.6f}"
        print(f"{setting}   {against}   {own}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
