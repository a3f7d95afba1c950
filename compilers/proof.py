"""Every build against ONNX Runtime on the same file, at the settings of its golden vectors.

``verify`` replays golden vectors that this build itself computed: it sees a damaged board, not a
wrong compiler. What the compiler does to a head that the core does not know is seen here:

- the head alone, fed the tokens that the compiled backbone gives, within ``LIMIT`` of the
  descriptor's largest value. A head with gates of its own may round a last bit the other way: it
  may be off by twice what ONNX Runtime's own answer moves when last bits of the tokens do.
- the whole file, by the cosine that golden vectors allow (docs/numerics.md, level c). A last bit
  that turns a rounding does so in a frame or two, a wrong compiler in all: one of four frames has
  to agree.
- where tokens leave, the head with half of them and with the fewest, whatever k the build is for.

For another machine the same model is compiled for this one, from the same lowering.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.compilers import golden
from tatvpr_edge.compilers.checks import DESCRIPTOR
from tatvpr_edge.compilers.graph import label
from tatvpr_edge.compilers.job import Job
from tatvpr_edge.compilers.match import Matched
from tatvpr_edge.compilers.reference import Reference, nodes_behind
from tatvpr_edge.runtime.frame import check_frame
from tatvpr_edge.runtime.library import Library
from tatvpr_edge.spec.errors import ModelError

F32 = NDArray[np.float32]
#: How far a float stage may be off, of its largest value (docs/numerics.md).
LIMIT = 1e-5
#: Answers of ONNX Runtime to tokens whose last bits moved.
_MOVED = 8
#: Frames of which one has to agree as a whole.
_FRAMES = 4
#: Half of the tokens, and CLS with one patch: a head may fit one number of tokens and not another.
_FEWER = (0.5, 1e-6)
_REMEDY = (
    "write that part of the head with other operators and export again (docs/lowering.md says "
    "which are held to ONNX Runtime in tests), or report it with the ONNX file"
)


def prove(job: Job, matched: Matched, core: Library, points: Sequence[golden.DriftPoint]) -> None:
    """Compare ``core``, the job's model compiled for this machine, with ONNX Runtime.

    Raises:
        ModelError: they differ, or ONNX Runtime cannot compute it; the text names the operator, how
            far it is off, and the remedy.
        ToolError: ONNX Runtime is missing or refuses the file.
    """
    assert job.graph.model is not None, "a graph that was read from a file"
    side = matched.image_size
    frame, *others = (golden.synthetic_frame(seed, side, side) for seed in range(_FRAMES))
    whole = Reference(job.graph.model, job.graph)
    last = matched.last_block
    value = None if last is None else last.output[0]
    cut = value is not None and nodes_behind(job.graph, value) is not None
    head = Reference(job.graph.model, job.graph, behind=value) if cut else None
    asked = [*points, *(_fewer(points) if matched.keeps_tokens else ())]
    for number, point in enumerate(asked):
        job.progress("against ONNX Runtime", number, len(asked))
        # First ONNX Runtime: a graph that no number of tokens fits never runs in the compiled code.
        whole_wanted = _whole(whole, frame, point)
        made = core.describe(check_frame(frame), point.k, point.tokens, want_tokens=True)
        if head is not None and value is not None and made.tokens is not None:
            wanted = head.run_behind(value, made.tokens, point.k, point.tokens)[DESCRIPTOR]
            off = distance(made.descriptor, wanted)
            if not off <= max(LIMIT, 2 * _moves(head, value, made.tokens, point)):
                raise ModelError(_refusal(job, value, made.tokens, point, off))
        found = golden.cosine(made.descriptor, whole_wanted)
        for other in others:
            if found >= point.min_cosine:
                break
            again = core.describe(check_frame(other), point.k, point.tokens).descriptor
            found = max(found, golden.cosine(again, _whole(whole, other, point)))
        if not found >= point.min_cosine:
            raise ModelError(
                f"model {job.name}: at k = {point.k:g}, tokens = {point.tokens:g} what was built "
                f"has cosine {found:.6f} to ONNX Runtime on the same file, and "
                f"{point.min_cosine:.6f} is the least that rounding explains: {_REMEDY}"
            )


def _fewer(points: Sequence[golden.DriftPoint]) -> list[golden.DriftPoint]:
    """Settings with fewer tokens for which no drift is known: any cosine is allowed."""
    k, known = max(point.k for point in points), {point.tokens for point in points}
    return [golden.DriftPoint(k, tokens, 0.0) for tokens in _FEWER if tokens not in known]


def _whole(whole: Reference, frame: NDArray[np.uint8], point: golden.DriftPoint) -> F32:
    descriptor: F32 = whole.run(frame, point.k, point.tokens)[DESCRIPTOR]
    return descriptor


def distance(got: F32, wanted: F32) -> float:
    """The largest difference as a share of the largest value; infinite for what is not finite."""
    most = float(np.abs(wanted).max(initial=0.0))
    off = float(np.abs(got - wanted).max(initial=0.0))
    if not (np.isfinite(off) and np.isfinite(most)):
        return float("inf")
    return off / most if most > 0 else float(off > 0)


def _moves(head: Reference, value: str, tokens: F32, point: golden.DriftPoint) -> float:
    """How far ONNX Runtime's own answer moves with last bits of the tokens; 0 without gates."""
    if not any(node.op_type == "TopKGate" for node in head.nodes):
        return 0.0
    rng = np.random.default_rng(0)
    still = head.run_behind(value, tokens, point.k, point.tokens)[DESCRIPTOR]
    found = 0.0
    for _ in range(_MOVED):
        bits = rng.uniform(-1, 1, tokens.shape).astype(np.float32)
        moved = tokens * (1 + bits * np.finfo(np.float32).eps)
        answer = head.run_behind(value, moved, point.k, point.tokens)[DESCRIPTOR]
        found = max(found, distance(answer, still))
    return found


def _refusal(job: Job, value: str, tokens: F32, point: golden.DriftPoint, off: float) -> str:
    """Why the head is refused: by the first operator that is off by itself, where one is."""
    from tatvpr_edge.compilers.tvm.blame import first_wrong

    assert job.graph.model is not None
    where = f"at k = {point.k:g}, tokens = {point.tokens:g}"
    every = Reference(job.graph.model, job.graph, every=True, behind=value)
    values = every.run_behind(value, tokens, point.k, point.tokens)
    wrong = first_wrong(every.nodes, values, job.graph, LIMIT)
    if wrong is None:
        return (
            f"model {job.name}: {where} its head, fed the same tokens, is off by {off:.2g} of "
            f"its largest value from ONNX Runtime on the same file, at most {LIMIT:g} is allowed, "
            f"although each operator by itself agrees: {_REMEDY}"
        )
    node, own = wrong
    return (
        f"model {job.name}: {label(node)} does not compile to what ONNX Runtime computes: it is "
        f"off by {own:.2g} of its largest value, at most {LIMIT:g} is allowed ({where}): {_REMEDY}"
    )
