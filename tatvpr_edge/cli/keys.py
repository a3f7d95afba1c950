"""``tatvpr-edge keys ...``: keys that sign artifacts, and boards that insist on them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from tatvpr_edge.cli.groups import Group
from tatvpr_edge.cli.output import json_option, note, print_json, print_table, say
from tatvpr_edge.cli.paths import FilePath
from tatvpr_edge.cli.remote import Report, Way, board_options, enforcement
from tatvpr_edge.deploy.naming import lead
from tatvpr_edge.spec.atomic import naming, put_new, staging
from tatvpr_edge.spec.errors import SignatureError


def key_folder() -> Path:
    """Where ``keys new`` puts keys."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(base) / "tatvpr-edge" / "keys"


@click.group("keys", cls=Group)
def command() -> None:
    """Make, list and trust keys that sign artifacts.

    Keys are OpenSSH's (Ed25519). Once a board trusts one, it accepts artifacts signed by a trusted
    key only: sign with 'tatvpr-edge build --sign KEY'. Trusted as root, the whole machine is held
    to it; as another user, the install root of that user.
    """


@command.command("new")
@click.argument("name")
@click.option(
    "--no-passphrase", is_flag=True, help="Do not protect it, for machines that sign by themselves."
)
@json_option
def new(name: str, no_passphrase: bool, as_json: bool) -> None:
    """Make a key called NAME."""
    from tatvpr_edge.runtime.signature import check_signer_name, ssh_keygen_path

    folder = key_folder()
    path = folder / check_signer_name(name)
    public = path.with_name(name + ".pub")
    if path.exists() and not public.exists():
        raise SignatureError(
            f"{path} has no public key beside it, as a 'keys new' leaves it that was killed: make "
            f"that with `ssh-keygen -y -f {shlex.quote(str(path))} > {shlex.quote(str(public))}`, "
            "or choose another name"
        )
    if path.exists() or public.exists():
        raise SignatureError(f"{path} exists already: choose another name")
    if not no_passphrase and not sys.stdin.isatty():
        raise SignatureError("a passphrase needs a terminal: use --no-passphrase here")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Half a pair, of a full disk or an end in between, would hold the name for ever.
    with naming(path), staging(path) as made:
        words = [ssh_keygen_path(), "-q", "-t", "ed25519", "-C", name, "-f", str(made / name)]
        done = subprocess.run(words + (["-N", ""] if no_passphrase else []), check=False)
        if done.returncode:
            raise SignatureError(f"ssh-keygen did not make {path}")
        try:
            # The public half last: alone it could be trusted, and nothing be signed by it.
            for part in (path, public):
                put_new(made / part.name, part)
        except BaseException:
            for part in (path, public):
                if not (made / part.name).exists():  # it was put, and what lies there is ours
                    part.unlink(missing_ok=True)
            raise
    if as_json:
        print_json({"name": name, "key": str(path), "public": str(public)})
        return
    say(str(path))
    note(f"sign with: tatvpr-edge build --sign {shlex.quote(str(path))} ...")
    note(f"trust it:  tatvpr-edge keys trust {shlex.quote(str(public))} USER@HOST")


@command.command("list")
@click.argument("target", metavar="[USER@HOST]", required=False)
@board_options
@json_option
def list_keys(target: str | None, way: Way, as_json: bool) -> None:
    """List the keys made here, or those that a board trusts."""
    none = "no keys"
    if target is None:
        keys = _made_here()
    else:
        from tatvpr_edge.deploy.push import status

        found = status(way.to(target), way.options())
        keys = found["keys"]
        none = enforcement(found)
    if as_json:
        print_json(keys)
    elif not keys:
        say(none)
    else:
        rows = [
            [key["name"], key["key"], "revoked" if key.get("revoked") else key.get("path", "")]
            for key in keys
        ]
        print_table(["name", "key", ""], rows)


@command.command("trust")
@click.argument("key", type=FilePath(path_type=Path))
@click.argument("target", metavar="USER@HOST")
@click.option("--name", help="Name of the key on the board (default: the file's).")
@click.option("--force", is_flag=True, help="Even if the live release is refused from then on.")
@board_options
@json_option
def trust(key: Path, target: str, name: str | None, force: bool, way: Way, as_json: bool) -> None:
    """Make the board trust the public KEY; it refuses unsigned artifacts from then on.

    A login as root binds every program and every user of that machine, whatever its install root.
    """
    from tatvpr_edge.deploy.push import trust as trust_on

    found = trust_on(
        way.to(target),
        name or key.name.removesuffix(".pub"),
        _public(key),
        force,
        way.options(),
        Report(as_json),
    )
    if as_json:
        print_json(found)
    else:
        say(f"{target} trusts: " + ", ".join(key["name"] for key in found["keys"]))
        say(enforcement(found))


@command.command("revoke")
@click.argument("key", type=FilePath(path_type=Path))
@click.argument("target", metavar="USER@HOST")
@click.option("--force", is_flag=True, help="Even if it signed the live release.")
@click.option(
    "--new-list", is_flag=True, help="Begin a new list, because the board's is lost or damaged."
)
@board_options
@json_option
def revoke(key: Path, target: str, force: bool, new_list: bool, way: Way, as_json: bool) -> None:
    """Make the board refuse the public KEY for ever."""
    from tatvpr_edge.deploy.push import revoke as revoke_on

    found = revoke_on(way.to(target), _public(key), way.options(), force, new_list)
    if as_json:
        print_json(found)
    else:
        when = "from now on" if found["enforced"] else "as soon as it insists on signatures"
        say(f"{target} refuses artifacts signed with {key} {when}")
        if not found["enforced"]:
            note(f"warning: {target} accepts unsigned artifacts, and so this key's: see keys trust")


@command.command("accept-unsigned")
@click.argument("target", metavar="USER@HOST")
@click.option("--yes", is_flag=True, help="Do not ask.")
@board_options
@json_option
def accept_unsigned(target: str, yes: bool, way: Way, as_json: bool) -> None:
    """Make the board accept unsigned artifacts again: whoever reaches it may run code on it."""
    from tatvpr_edge.deploy.push import accept_unsigned as accept_on

    note(f"warning: {target} will run artifacts that nobody signed, and forget whom it trusts")
    if not yes:
        if not sys.stdin.isatty():
            raise SignatureError("this needs a terminal to ask on, or --yes")
        click.confirm("Accept unsigned artifacts?", abort=True, err=True)
    found = accept_on(way.to(target), way.options())
    if as_json:
        print_json(found)
    else:
        say(f"{lead(target)} {found['was']} enforces signatures no longer")
        say(enforcement(found))


@command.command("downgrades")
@click.argument("target", metavar="USER@HOST")
@click.option("--permit/--refuse", "permitted", required=True, help="From now on.")
@board_options
@json_option
def downgrades(target: str, permitted: bool, way: Way, as_json: bool) -> None:
    """Make the board permit 'deploy --allow-downgrade', or refuse it.

    Whoever sends cannot waive the protection against older releases: the board has to permit it,
    where its keys are listed. Refuse it again when it is done.
    """
    from tatvpr_edge.deploy.push import downgrades as downgrades_on

    found = downgrades_on(way.to(target), permitted, way.options())
    if as_json:
        print_json(found)
    else:
        does = (
            "accepts older releases with --allow-downgrade" if permitted else "refuses older ones"
        )
        say(f"{target} {does} from now on")


def _made_here() -> list[dict[str, Any]]:
    """The public keys in the folder of keys; a file that is none is named and left out."""
    from tatvpr_edge.runtime.signature import check_public_key

    keys = []
    for path in sorted(key_folder().glob("*.pub")):
        try:
            public = check_public_key(_public(path))
        except SignatureError:
            note(f"left out: {path} is no public key")
            continue
        keys.append({"name": path.stem, "key": public, "path": str(path)})
    return keys


def _public(key: Path) -> str:
    path = key if key.suffix == ".pub" else key.with_name(key.name + ".pub")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise SignatureError(
            f"no public key at {path}: `tatvpr-edge keys list` shows yours"
        ) from None
