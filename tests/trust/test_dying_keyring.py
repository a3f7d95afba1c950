"""A board that dies, or whose disk fills, while its lists change: they say what they said before or
what was asked for, and never let more in than either."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.board import make_artifact
from support.deaths import dies_at, fails_beyond
from support.keys import Keys
from tatvpr_edge.deploy.disk import Disk
from tatvpr_edge.deploy.keyring import Keyring
from tatvpr_edge.deploy.store import Store
from tatvpr_edge.runtime.signature import artifact_verifier
from tatvpr_edge.runtime.signing import sign_artifact
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import SignatureError

NAMES = {"root", "etc", "enforced", "trust", "allowed_signers", "revoked_keys"}
Change = Callable[[Keyring, Keys], object]
#: What is asked of a board after what: (name, before, the change).
CHANGES: list[tuple[str, list[Change], Change]] = []


def asked(*before: Change) -> Callable[[Change], Change]:
    def put(change: Change) -> Change:
        CHANGES.append((change.__name__.replace("_", " "), list(before), change))
        return change

    return put


@asked()
def a_first_key_is_trusted(keyring: Keyring, keys: Keys) -> None:
    keyring.trust("ours", keys.public("ours"), None, False)


@asked(a_first_key_is_trusted)
def a_second_key_is_trusted(keyring: Keyring, keys: Keys) -> None:
    keyring.trust("second", keys.public("second"), None, False)


@asked(a_first_key_is_trusted, a_second_key_is_trusted)
def a_key_is_revoked(keyring: Keyring, keys: Keys) -> None:
    keyring.revoke(keys.public("second"), None, False, False)


@asked(a_first_key_is_trusted, a_key_is_revoked)
def another_key_is_revoked(keyring: Keyring, keys: Keys) -> None:
    keyring.revoke(keys.public("ours"), None, False, False)


@asked(a_first_key_is_trusted)
def older_releases_are_permitted(keyring: Keyring, keys: Keys) -> None:
    keyring.downgrades(True)


@asked(a_first_key_is_trusted, a_key_is_revoked)
def it_is_turned_off(keyring: Keyring, keys: Keys) -> None:
    with contextlib.suppress(SignatureError):  # where it is off already
        keyring.off()


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """One that nobody signed, and one of each of our keys."""
    yield [make_artifact(tmp_path_factory.mktemp(n) / "a").root for n in ("no", "one", "two")]


def keyring_of(place: Path) -> Keyring:
    """The keyring of a board that lies below ``place``, with a machine's folder of its own."""
    return Keyring(Store(str(place / "root"), Disk()), place / "etc")


def let_in(place: Path, artifacts: list[Path]) -> frozenset[int]:
    """Which of the artifacts a program on the board accepts."""
    accepted = set()
    for number, artifact in enumerate(artifacts):
        try:
            verifier = artifact_verifier(place / "root", place / "etc")
            read_artifact(artifact, verify_signature=verifier)
        except SignatureError:
            continue
        accepted.add(number)
    return frozenset(accepted)


@pytest.mark.parametrize(
    ("before", "change"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES]
)
def test_whatever_ends_a_change_lets_no_more_in(
    ram_path: Path, keys: Keys, artifacts: list[Path], before: list[Change], change: Change
) -> None:
    for name, artifact in zip(("ours", "second"), artifacts[1:], strict=True):
        sign_artifact(artifact, keys.private(name), serial=100)
    template = ram_path / "template"
    (template / "root").mkdir(parents=True)
    (template / "etc").mkdir()
    for step in before:
        step(keyring_of(template), keys)
    old = let_in(template, artifacts)
    done = Path(shutil.copytree(template, ram_path / "done"))
    change(keyring_of(done), keys)
    new = let_in(done, artifacts)

    def judge(place: Path) -> None:
        found = let_in(place, artifacts)
        # While it is turned off, nothing is trusted between its two steps.
        assert found in (old, new) or (change is it_is_turned_off and not found)
        change(keyring_of(place), keys)
        assert let_in(place, artifacts) == new
        assert {path.name for path in place.rglob("*")} <= NAMES, "something is left behind"

    at = 0
    while True:
        place = Path(shutil.copytree(template, ram_path / f"at{at}"))
        if not dies_at(at, lambda place=place: change(keyring_of(place), keys)):  # type: ignore[misc]
            break
        judge(place)
        at += 1
    assert at >= 2
    for room in (0, 1, 50, 100, 150, 200, 300):
        place = Path(shutil.copytree(template, ram_path / f"room{room}"))
        fails_beyond(room, lambda place=place: change(keyring_of(place), keys))  # type: ignore[misc]
        judge(place)
