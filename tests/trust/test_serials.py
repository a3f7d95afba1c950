"""What is older than what a board has, or from the future: kept out whatever else is lost."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.board import (
    board_modules,
    live_content,
    local_transport,
    make_artifact,
    make_wheel,
    quick_options,
    system_folder,
)
from support.keys import Keys
from tatvpr_edge.cli import main
from tatvpr_edge.deploy.health import Health
from tatvpr_edge.deploy.push import Options, deploy, downgrades, status, trust
from tatvpr_edge.runtime.signature import artifact_verifier
from tatvpr_edge.runtime.signing import sign_artifact
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import DeployError, SignatureError

DAY_S = 86_400
Sign = Callable[..., Path]


@pytest.fixture
def sign(tmp_path: Path, keys: Keys) -> Sign:
    """Makes an artifact that our key signed with a serial."""

    def make(name: str, serial: int, behaviour: str = "") -> Path:
        make_artifact(tmp_path / name, name.encode(), behaviour)
        sign_artifact(tmp_path / name, keys.private("ours"), serial)
        return tmp_path / name

    return make


@pytest.fixture
def board(tmp_path: Path, keys: Keys, sign: Sign) -> tuple[Path, Options]:
    """A board that trusts our key and runs a release of serial 150; one of 100 lies beside it."""
    key = keys.private("ours")
    options = quick_options(tmp_path / "root", make_wheel(tmp_path), sign=key)
    deploy(local_transport(), sign("first", 100), None, options)
    trust(local_transport(), "ours", keys.public("ours"), options=options)
    deploy(local_transport(), sign("second", 150), None, options)
    return tmp_path / "root", options


@pytest.mark.parametrize(
    "state",
    [None, b"", b'{"floor": "x"}', b'{"floor": -5, "history": 7}', b'{"floor": 1}'],
)
def test_a_lost_state_lets_nothing_older_in(
    board: tuple[Path, Options], sign: Sign, state: bytes | None
) -> None:
    root, options = board
    older = sign("older", 149)
    (root / "state.json").unlink()
    if state is not None:
        (root / "state.json").write_bytes(state)
    verifier = artifact_verifier(root)
    with pytest.raises(SignatureError, match="older than the installed 150"):
        read_artifact(older, verify_signature=verifier)
    with pytest.raises(SignatureError, match="older than the installed 150"):
        deploy(local_transport(), older, None, options)
    # What is live starts, whatever was lost.
    read_artifact(root / "current" / "artifact", verify_signature=verifier)


def test_a_release_that_failed_keeps_nothing_out(board: tuple[Path, Options], sign: Sign) -> None:
    root, options = board
    live = live_content(root)
    with pytest.raises(DeployError, match="went back"):
        deploy(local_transport(), sign("bad", 900, "service-wrong"), None, options)
    assert live_content(root) == live
    deploy(local_transport(), sign("mended", 160), None, options)
    assert status(local_transport(), options)["lowest_serial"] == 160


def test_downgrades_are_permitted_where_the_keys_are_listed(
    tmp_path: Path, keys: Keys, sign: Sign, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    wheel = make_wheel(tmp_path)
    modules = board_modules(root, machine=True)
    as_root = quick_options(root, wheel, modules=modules, sign=keys.private("ours"))
    with pytest.raises(SignatureError, match="enforces no signatures"):
        downgrades(local_transport(), True, as_root)
    deploy(local_transport(), sign("first", 100), None, as_root)
    trust(local_transport(), "ours", keys.public("ours"), options=as_root)
    downgrades(local_transport(), True, as_root)
    assert json.loads((system_folder(root) / "enforced").read_text())["downgrades"] is True
    # Trusting another key says nothing of it.
    trust(local_transport(), "second", keys.public("second"), options=as_root)
    assert status(local_transport(), as_root)["downgrades"] is True
    # The command says so where nothing is enforced (it changes nothing of this machine here).
    assert main(["keys", "downgrades", "local:", "--root", str(tmp_path / "own"), "--permit"]) == 1
    assert "enforces no signatures" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("clock", "ahead_s", "refused"),
    [
        ("right", DAY_S // 2, False),
        ("right", 3 * DAY_S, True),
        ("right", 10**9, True),
        ("not set", 10**9, False),
        ("behind what is installed", 10**9, False),
    ],
)
def test_serials_far_in_the_future_are_refused_by_a_clock_that_can_judge(
    board: tuple[Path, Options], sign: Sign, clock: str, ahead_s: int, refused: bool
) -> None:
    root, options = board
    now = int(time.time())
    if clock == "behind what is installed":
        deploy(local_transport(), sign("third", now - 10), None, options)
    # The board's own clock; its modules take it from here.
    says = {"right": "real()", "not set": "3000.0"}.get(clock, "real() - 86400 * 30")
    modules = board_modules(root)
    place = [name for name, _ in modules].index("tatvpr_edge.runtime.signature")
    modules[place] = (
        modules[place][0],
        modules[place][1] + f"\ntime.time = lambda real=time.time: {says}\n",
    )
    options = replace(options, modules=modules)
    artifact = sign("next", now + ahead_s)
    live = live_content(root)
    if refused:
        with pytest.raises(SignatureError, match=r"days in the future: sign it again"):
            deploy(local_transport(), artifact, None, options)
        assert live_content(root) == live
    else:
        deploy(local_transport(), artifact, None, options)
        assert live_content(root) != live


def test_what_the_agent_let_in_is_not_refused_for_its_age_by_its_golden_vectors(
    tiny_host: Path, tmp_path: Path, keys: Keys, enforce: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board whose clock is behind what is installed took no release once root trusted a key."""
    release, site = tmp_path / "release", tmp_path / "site"
    shutil.copytree(tiny_host, release / "artifact")
    sign_artifact(release / "artifact", keys.private("ours"), int(time.time()) + 100 * DAY_S)
    system = enforce(tmp_path / "etc")
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "from pathlib import Path\nfrom tatvpr_edge.runtime import trust\n"
        f"trust.SYSTEM = Path({str(system)!r})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(site))
    health = Health(str(tmp_path / "root"), str(release), [sys.executable])
    assert health.golden(60)["signature"] == "good"


@pytest.mark.parametrize("epoch", ["yesterday", "-1", "1e9", " 5", "9" * 16, "٣"])
def test_a_wrong_source_date_epoch_costs_no_artifact(
    tmp_path: Path,
    keys: Keys,
    tiny_onnx: Path,
    epoch: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_artifact(tmp_path / "a").root
    sign_artifact(folder, keys.private("ours"), serial=7)
    before: dict[str, Any] = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(SignatureError, match="SOURCE_DATE_EPOCH"):
        sign_artifact(folder, keys.private("ours"))
    assert before == {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    read_artifact(folder)
    words = [
        "build",
        "--model",
        str(tiny_onnx),
        "--board",
        "host",
        "--sign",
        str(keys.private("ours")),
    ]
    assert main([*words, "--output", str(tmp_path / "built")]) == 1
    assert "SOURCE_DATE_EPOCH" in capsys.readouterr().err
    assert not (tmp_path / "built").exists(), "the build ran first"
