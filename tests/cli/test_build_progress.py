"""A build whose output is a file or a pipe says how far its long steps are."""

from __future__ import annotations

import pytest

from tatvpr_edge.cli.output import BuildProgress


@pytest.mark.parametrize("quiet", [False, True])
def test_a_long_step_is_told_in_tenths(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with BuildProgress(quiet=quiet) as progress:
        progress("lowering", 0, 1)
        for done in range(1, 201):
            progress("drift", done, 200)
        for done in range(13):
            progress("against ONNX Runtime", done, 13)
    told = [f"drift: {done} of 200" for done in range(20, 201, 20)]
    wanted = [] if quiet else ["lowering", "drift", *told, "against ONNX Runtime"]
    captured = capsys.readouterr()
    assert captured.err.splitlines() == wanted and captured.out == ""
