"""Which release's runtime a program on a board gets: the live one's where that is whole.

Packed into one file of each release, ``start``, which the release's ``python`` script asks before
it runs anything: a runtime that rotted so far that Python cannot import it cannot heal itself.
Nothing of a runtime runs before it was held to its release's list, and that list, where signatures
are enforced, to the keys that are trusted. Standard library only.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tatvpr_edge.spec.errors import ArtifactError, DeployError, TatvprError
from tatvpr_edge.spec.text import printable

from . import deployed, signed_release, trust, whole
from .deployed import Deployed
from .table import Table
from .trust import Trust


def listed(folder: str, trusted: Trust | None) -> Table:
    """The list of the release in ``folder``, read once, and signed where that is enforced.

    Raises:
        DeployError: it is damaged.
        SignatureError: signatures are enforced, and no trusted key signed it.
    """
    if trusted is None:
        return whole.read_table(folder)
    data, made = whole.read_list(folder), signed_release.read_signature(folder)
    return signed_release.check_list(data, made, trusted, os.path.basename(folder))[1]


def check_runtime(release: Deployed, root: Path) -> None:
    """The runtime of ``release`` is what was sent, and nothing lies beside it.

    Raises:
        ArtifactError, SignatureError: it is not, or nobody who is trusted signed it.
    """
    folder, trusted = os.fspath(release.folder), trust.find(root)
    inside = deployed.RUNTIME + "/"
    try:
        table = listed(folder, trusted)
        # Python would import what was put beside it first, before anything checks the release.
        whole.check_tree(folder, table, added=True, bytecode=trusted is None)
        for row in table.rows:
            if row.path.startswith(inside):
                whole.check_file(os.path.join(folder, row.path), row)
    except DeployError as error:
        raise ArtifactError(f"release {release.folder.name} is damaged: {error}") from None


def runtime_of(release: Path) -> tuple[Path, str | None]:
    """(the runtime's folder, why it is another release's than ``release``'s or None).

    Raises:
        ArtifactError, SignatureError: neither is whole and trusted, where signatures are enforced.
            Elsewhere ``release``'s own is given then, as it is.
    """
    folder = Path(os.path.realpath(release))
    root = folder.parent.parent
    own = Deployed(folder, folder / deployed.ARTIFACT, None)
    try:
        check_runtime(own, root)
        return folder / deployed.RUNTIME, None
    except TatvprError as error:
        fault = error
    live = deployed.live_release(root)
    before = None
    if live is not None and live.folder == folder:
        before = deployed.fallback(root, live)
    if before is not None:
        try:
            check_runtime(before, root)
        except TatvprError as error:
            fault = type(fault)(f"{fault}; nor is the release before it whole: {error}")
        else:
            why = f"{fault}; the runtime of {before.folder.name} runs instead"
            return before.folder / deployed.RUNTIME, why
    if trust.find(root) is not None:
        raise fault
    return folder / deployed.RUNTIME, str(fault)


def main(words: list[str]) -> int:
    """Print the runtime's folder for programs that were to have that of the release in ``words``;
    exit status ``deployed.REFUSED`` where no runtime may run."""
    try:
        runtime, why = runtime_of(Path(words[0]))
    except (TatvprError, OSError) as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return deployed.REFUSED
    if why is not None:
        print(f"warning: {printable(why)}", file=sys.stderr)
    print(runtime)
    return 0
