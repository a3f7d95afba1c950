"""Signed artifacts: a board that trusts a key takes what it signed, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.board import board_modules, live_content, local_transport, make_artifact, quick_options
from tatvpr_edge.deploy.push import Options, deploy, downgrades, revoke, rollback, status, trust
from tatvpr_edge.runtime.signature import artifact_verifier, check_trust
from tatvpr_edge.runtime.signing import sign_artifact
from tatvpr_edge.runtime.trust import find as trust_in
from tatvpr_edge.spec.artifact import Artifact, read_artifact, read_signed
from tatvpr_edge.spec.errors import ArtifactError, DeployError, SignatureError, UsageError
from tatvpr_edge.spec.manifest import seal


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Key pairs: ours, another of ours, and a stranger's."""
    folder = tmp_path_factory.mktemp("keys")
    made = {}
    for name in ("ours", "second", "stranger"):
        made[name] = folder / name
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", made[name]],
            check=True,
        )
    return made


def public(key: Path) -> str:
    return key.with_name(key.name + ".pub").read_text()


FLOORS = ("floor", "release_floor")


@pytest.fixture
def trusting(ram_path: Path, wheel: Path, keys: dict[str, Path]) -> tuple[Path, Any]:
    """A board that runs a signed release and trusts our key."""
    root = ram_path / "root"
    options = quick_options(root, wheel, sign=keys["ours"])
    make_artifact(ram_path / "first", b"first")
    sign_artifact(ram_path / "first", keys["ours"], serial=100)
    deploy(local_transport(), ram_path / "first", None, options)
    trust(local_transport(), "ours", public(keys["ours"]), options=options)
    return root, options


def signed(folder: Path, key: Path, serial: int, content: bytes = b"next") -> Artifact:
    make_artifact(folder, content)
    sign_artifact(folder, key, serial)
    return read_artifact(folder)


def refused(root: Path, options: Any, folder: Path, says: str) -> None:
    """Deploy and ``Localizer``'s reader refuse ``folder`` alike; the first release stays."""
    live = live_content(root)
    with pytest.raises(SignatureError, match=says):
        deploy(local_transport(), folder, None, options)
    assert live_content(root) == live and not os.listdir(root / "staging")
    verifier = artifact_verifier(root)
    assert verifier is not None
    with pytest.raises(SignatureError, match=says):
        read_artifact(folder, verify_signature=verifier)


def test_a_board_that_trusts_a_key_takes_what_it_signed(
    ram_path: Path, trusting: Any, keys: dict[str, Path]
) -> None:
    root, options = trusting
    folder = ram_path / "next"
    artifact = signed(folder, keys["ours"], 101)
    done = deploy(local_transport(), folder, None, options)
    assert done.signer == "ours" and live_content(root) == artifact.manifest.model.hash
    found = status(local_transport(), options)
    assert found["lowest_serial"] == 101 and found["keys"][0]["name"] == "ours"
    verifier = artifact_verifier(root)
    assert verifier is not None
    read_artifact(root / "current" / "artifact", verify_signature=verifier)


def test_unsigned_foreign_revoked_altered_and_mixed_are_refused(
    ram_path: Path, trusting: Any, keys: dict[str, Path]
) -> None:
    root, options = trusting
    make_artifact(ram_path / "unsigned", b"unsigned")
    refused(root, options, ram_path / "unsigned", "is unsigned")
    signed(ram_path / "foreign", keys["stranger"], 200)
    refused(root, options, ram_path / "foreign", "does not trust")

    good = ram_path / "good"
    signed(good, keys["ours"], 200)
    signature = (good / "manifest.sig").read_bytes()
    manifest = (good / "manifest.json").read_bytes()
    # The manifest altered, still whole in itself.
    (good / "manifest.json").write_bytes(seal({**json.loads(manifest), "serial": 999}))
    refused(root, options, good, "altered")
    (good / "manifest.json").write_bytes(manifest)
    # The signature of another release of ours; a signature made for another purpose; rubbish.
    signed(ram_path / "other", keys["ours"], 201, b"other")
    (good / "manifest.sig").write_bytes((ram_path / "other" / "manifest.sig").read_bytes())
    refused(root, options, good, "altered")
    purpose = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-f", keys["ours"], "-n", "file"],
        input=manifest,
        capture_output=True,
        check=True,
    ).stdout
    (good / "manifest.sig").write_bytes(purpose)
    refused(root, options, good, "signature refused|does not trust")
    (good / "manifest.sig").write_bytes(b"-----BEGIN SSH SIGNATURE-----\nAAAA\n")
    refused(root, options, good, "does not trust|signature refused")
    # Files of two releases mixed: the signed manifest knows its own.
    (good / "manifest.sig").write_bytes(signature)
    weights = (good / "weights.bin").read_bytes()
    shutil.copy(ram_path / "other" / "weights.bin", good / "weights.bin")
    with pytest.raises(ArtifactError, match=r"weights.bin"):
        deploy(local_transport(), good, None, options)
    (good / "weights.bin").write_bytes(weights)

    # The key of the live release is not revoked by the way: what that ends is said first.
    with pytest.raises(SignatureError, match="signed the live release, which would not start"):
        revoke(local_transport(), public(keys["ours"]), options)
    assert status(local_transport(), options)["keys"][0]["revoked"] is False
    revoke(local_transport(), public(keys["ours"]), options, force=True)
    refused(root, options, good, "revoked")
    with pytest.raises(SignatureError, match="is revoked on this board"):
        trust(local_transport(), "again", public(keys["ours"]), options=options)
    assert status(local_transport(), options)["keys"][0]["revoked"] is True


def test_every_byte_of_a_signature_matters(
    ram_path: Path, trusting: Any, keys: dict[str, Path]
) -> None:
    root, _ = trusting
    good = ram_path / "good"
    signed(good, keys["ours"], 300)
    trusted = trust_in(root)
    assert trusted is not None and check_trust(read_signed(good), trusted) == "ours"
    signature = (good / "manifest.sig").read_bytes()
    body = [i for i in range(40, len(signature) - 40) if chr(signature[i]).isalnum()]
    for place in body[::9]:
        spoiled = bytearray(signature)
        spoiled[place] = ord("A") if spoiled[place] != ord("A") else ord("B")
        (good / "manifest.sig").write_bytes(spoiled)
        with pytest.raises(SignatureError):
            check_trust(read_signed(good), trusted)


def test_an_older_release_is_refused_unless_it_is_meant(
    ram_path: Path, trusting: Any, keys: dict[str, Path]
) -> None:
    root, options = trusting
    first = live_content(root)
    signed(ram_path / "newer", keys["ours"], 150, b"newer")
    deploy(local_transport(), ram_path / "newer", None, options)
    older = signed(ram_path / "older", keys["ours"], 120, b"older")
    refused(root, options, ram_path / "older", "serial 120, older than the installed 150")
    # A rollback is meant; what it makes live, Localizer takes. It lowers no guard.
    floors = [json.loads((root / "state.json").read_text())[key] for key in FLOORS]
    rollback(local_transport(), None, options)
    assert live_content(root) == first and floors[0] == 150
    assert [json.loads((root / "state.json").read_text())[key] for key in FLOORS] == floors
    verifier = artifact_verifier(root)
    assert verifier is not None
    read_artifact(root / "current" / "artifact", verify_signature=verifier)
    deploy(local_transport(), ram_path / "newer", None, options)
    # Whoever sends cannot waive it: the board has to permit it.
    meant = replace(options, allow_older=True)
    with pytest.raises(SignatureError, match="this board permits no downgrade"):
        deploy(local_transport(), ram_path / "older", None, meant)
    downgrades(local_transport(), True, options)
    refused(root, options, ram_path / "older", "serial 120, older than the installed 150")
    deploy(local_transport(), ram_path / "older", None, meant)
    assert live_content(root) == older.manifest.model.hash
    # What is live is judged by no serial; whatever else comes is, as before.
    read_artifact(root / "current" / "artifact", verify_signature=artifact_verifier(root))
    found = status(local_transport(), options)
    assert found["lowest_serial"] == 150 and found["downgrades"] is True
    downgrades(local_transport(), False, options)
    signed(ram_path / "between", keys["ours"], 130, b"between")
    with pytest.raises(SignatureError, match="this board permits no downgrade"):
        deploy(local_transport(), ram_path / "between", None, meant)


def test_going_back_further_than_to_the_release_before_is_meant_too(
    ram_path: Path, trusting: Any, keys: dict[str, Path]
) -> None:
    root, options = trusting
    first = (root / "current").resolve()
    for serial in (150, 170):
        signed(ram_path / str(serial), keys["ours"], serial, b"%d" % serial)
        deploy(local_transport(), ram_path / str(serial), None, options)
    rollback(local_transport(), first.name, options)
    assert (root / "current").resolve() == first


@pytest.mark.parametrize("repaired", [False, True])
def test_what_a_rollback_made_live_may_be_deployed_again(
    ram_path: Path, trusting: Any, keys: dict[str, Path], repaired: bool
) -> None:
    """It is judged by no serial, a repaired copy with a name of its own as little."""
    root, options = trusting
    if repaired:
        (root / "current" / "artifact" / "weights.bin").write_bytes(b"rotten")
        deploy(local_transport(), ram_path / "first", None, options)
    live = (root / "current").resolve()
    assert live.name.endswith(".2") is repaired
    signed(ram_path / "newer", keys["ours"], 150, b"newer")
    deploy(local_transport(), ram_path / "newer", None, options)
    rollback(local_transport(), None, options)
    assert not deploy(local_transport(), ram_path / "first", None, options).changed
    assert (root / "current").resolve() == live


def test_the_guard_outlives_a_lost_state_and_the_release_that_raised_it(
    ram_path: Path, trusting: Any, keys: dict[str, Path]
) -> None:
    root, options = trusting
    signed(ram_path / "newer", keys["ours"], 150, b"newer")
    deploy(local_transport(), ram_path / "newer", None, options)
    (root / "state.json").unlink()
    downgrades(local_transport(), True, options)
    for serial in (120, 121, 122):
        signed(ram_path / str(serial), keys["ours"], serial, b"%d" % serial)
        meant = replace(options, allow_older=True, keep=2)
        deploy(local_transport(), ram_path / str(serial), None, meant)
    signed(ram_path / "between", keys["ours"], 130, b"between")
    refused(root, options, ram_path / "between", "serial 130, older than the installed 150")


def test_a_map_that_was_altered_is_not_gone_back_to_where_a_key_is_trusted(
    ram_path: Path, trusting: Any, keys: dict[str, Path], hall: Any
) -> None:
    """Elsewhere the board may have written it anew."""
    root, options = trusting
    mapped = signed(ram_path / "mapped", keys["ours"], 110, b"mapped")
    deploy(local_transport(), mapped, hall(mapped), options)
    path = (root / "current" / "map.placemap").resolve()
    signed(ram_path / "newer", keys["ours"], 150, b"newer")
    deploy(local_transport(), ram_path / "newer", None, replace(options, no_map=True))
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DeployError, match=r"is damaged: .*map.placemap"):
        rollback(local_transport(), None, options)
    assert (root / "current").resolve() != path.parent


def test_a_downgrade_that_fails_does_not_lower_the_guard(
    ram_path: Path, trusting: Any, keys: dict[str, Path]
) -> None:
    root, options = trusting
    signed(ram_path / "newer", keys["ours"], 150, b"newer")
    deploy(local_transport(), ram_path / "newer", None, options)
    live = live_content(root)
    downgrades(local_transport(), True, options)
    make_artifact(ram_path / "bad", b"bad", "service-wrong")
    sign_artifact(ram_path / "bad", keys["ours"], 110)
    with pytest.raises(DeployError, match="went back"):
        deploy(local_transport(), ram_path / "bad", None, replace(options, allow_older=True))
    assert live_content(root) == live
    assert status(local_transport(), options)["lowest_serial"] == 150


def test_a_release_confirmed_by_the_next_deploy_raises_the_guard_too(
    ram_path: Path, trusting: Any, keys: dict[str, Path]
) -> None:
    root, options = trusting
    artifact = signed(ram_path / "next", keys["ours"], 170)
    modules = board_modules(root)
    killing = (
        "\ndef _die(self, *_):\n    os.kill(os.getpid(), signal.SIGKILL)\nHealth.alive = _die\n"
    )
    modules[-1] = (modules[-1][0], modules[-1][1] + killing)
    with pytest.raises(DeployError, match="ended early"):
        deploy(local_transport(), artifact, None, replace(options, modules=modules))
    assert live_content(root) == artifact.manifest.model.hash
    found = status(local_transport(), options)
    assert found["unconfirmed"] and found["lowest_serial"] == 100
    revoke(local_transport(), public(keys["stranger"]), options)  # anything that takes the lock
    found = status(local_transport(), options)
    assert not found["unconfirmed"] and found["lowest_serial"] == 170
    signed(ram_path / "older", keys["ours"], 130, b"older")
    refused(root, options, ram_path / "older", "older than the installed 170")


def test_trusting_a_key_does_not_cut_the_live_release_off(
    ram_path: Path, wheel: Path, keys: dict[str, Path]
) -> None:
    root = ram_path / "root"
    options = quick_options(root, wheel)
    deploy(local_transport(), make_artifact(ram_path / "a"), None, options)
    with pytest.raises(SignatureError, match="live release would be refused from now on"):
        trust(local_transport(), "ours", public(keys["ours"]), options=options)
    assert artifact_verifier(root) is None, "a key was trusted after all"
    trust(local_transport(), "ours", public(keys["ours"]), True, options)
    trust(local_transport(), "second", public(keys["second"]), True, options)
    with pytest.raises(SignatureError, match="another key named ours"):
        trust(local_transport(), "ours", public(keys["stranger"]), True, options)
    assert [key["name"] for key in status(local_transport(), options)["keys"]] == ["ours", "second"]
    # What is live is refused already, so that no revocation makes it so.
    revoke(local_transport(), public(keys["stranger"]), options)
    signed(ram_path / "b", keys["second"], 5)
    options = replace(options, sign=keys["second"])
    assert deploy(local_transport(), ram_path / "b", None, options).signer == "second"


HEADER = "-----BEGIN OPENSSH PRIVATE KEY-----"


def test_signing_needs_a_key_and_an_artifact(ram_path: Path, keys: dict[str, Path]) -> None:
    make_artifact(ram_path / "a")
    for days in (0.0, -1.0, 1e5, float("nan")):
        with pytest.raises(UsageError, match="expires_days is a number of days above 0"):
            Options(sign=keys["ours"], expires_days=days)
    with pytest.raises(SignatureError, match="no key at"):
        sign_artifact(ram_path / "a", ram_path / "none")
    with pytest.raises(ArtifactError, match="no such folder"):
        sign_artifact(ram_path / "none", keys["ours"])
    for text, why in (("no key", "is no SSH key"), (f"{HEADER}\nno key", "cannot sign with")):
        (ram_path / "rubbish").write_text(text)
        (ram_path / "rubbish").chmod(0o600)
        with pytest.raises(SignatureError, match=why):
            sign_artifact(ram_path / "a", ram_path / "rubbish")
    before = (ram_path / "a" / "manifest.json").read_bytes()
    sign_artifact(ram_path / "a", keys["ours"], serial=7)
    after = json.loads((ram_path / "a" / "manifest.json").read_bytes())
    before = json.loads(before)
    assert after.pop("sha256") != before.pop("sha256")
    assert after == {**before, "serial": 7}
    assert {p.name for p in ram_path.iterdir()} == {"a", "rubbish"}


def test_an_artifact_that_nobody_signed_is_told_beside_the_release_that_is(
    ram_path: Path, wheel: Path, keys: dict[str, Path]
) -> None:
    options = quick_options(ram_path / "root", wheel, sign=keys["ours"])
    make_artifact(ram_path / "bare", b"bare")
    done = deploy(local_transport(), ram_path / "bare", None, options)
    [said] = [text for text in done.warnings if "signed" in text]
    assert str(ram_path / "bare") in said and "build --sign" in said
    sign_artifact(ram_path / "bare", keys["ours"], serial=100)
    done = deploy(local_transport(), ram_path / "bare", None, options)
    assert not [text for text in done.warnings if "signed" in text]
