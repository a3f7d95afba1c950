"""OpenArena, drawing views of a map without a screen: Xvfb and Mesa's software renderer."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tatvpr_edge.spec.atomic import temporary_folder
from tatvpr_edge.spec.errors import DataError, ToolError

GAME = Path("/usr/games/openarena")
PACKS = Path("/usr/share/games/openarena/baseoa")
INSTALL = "apt-get install openarena xvfb"
#: The engine's origin of a player lies so far above the floor, and its eye above that.
FEET, EYE = 24.0, 26.0
#: Every drawn frame is a step of the game. The engine runs its commands several times a frame, a
#: jump travels to its server and back, and leaves sparks that take a while to go out: fewer waits
#: draw the view before.
_FRAME_MS = 250
_SETTLE = 48
_ENTER = 120  # frames until the player has entered the game
_MOST_COMMANDS = 100_000  # bytes that the engine's command buffer takes
_START_S, _VIEW_S = 240.0, 8.0
_CVARS = {
    "com_introplayed": "1",
    "s_initsound": "0",
    "r_mode": "-1",
    "r_fullscreen": "0",
    "r_screenshotJpegQuality": "95",
    "r_gamma": "1.5",
    "sv_pure": "0",
    "bot_enable": "0",
    "g_doWarmup": "0",
    "con_notifytime": "-1",
    "cg_draw2D": "0",
    "cg_drawGun": "0",
    "cg_marks": "0",
    "com_maxfps": "0",
    "cl_maxpackets": "125",
}


@dataclass(frozen=True)
class ArenaView:
    """A camera: the player's origin in map units, and its heading in degrees."""

    x: float
    y: float
    z: float
    heading: float


def packed_maps() -> dict[str, bytes]:
    """The bytes of every map that is installed, by name; later packs win, as in the game.

    Raises:
        ToolError: OpenArena is not installed.
    """
    packs = sorted(PACKS.glob("*.pk3"))
    if not (GAME.exists() and packs and shutil.which("Xvfb") and shutil.which("xvfb-run")):
        raise ToolError(f"OpenArena or Xvfb is not installed: {INSTALL}")
    found = {}
    for pack in packs:
        with zipfile.ZipFile(pack) as archive:
            for name in archive.namelist():
                if name.startswith("maps/") and name.endswith(".bsp"):
                    found[Path(name).stem] = archive.read(name)
    return found


def draw(
    map_name: str, views: Mapping[str, ArenaView], size: tuple[int, int]
) -> dict[str, NDArray[np.uint8]]:
    """Frames uint8 [height, width, 3] of the views by their names (letters, digits, "-").

    Raises:
        ToolError: the engine did not start, or ended before it drew a view.
        DataError: more views than its command buffer takes.
    """
    script = "\n".join(
        [
            f"wait {_ENTER}",
            "god",
            "noclip",
            f"fixedtime {_FRAME_MS}",
            *(
                f"setviewpos {v.x:.0f} {v.y:.0f} {v.z:.0f} {v.heading:.1f}; wait {_SETTLE}; "
                f"screenshotJPEG {name}; wait 1"
                for name, v in views.items()
            ),
            "quit",
        ]
    )
    if len(script) > _MOST_COMMANDS:
        raise DataError(f"{len(views)} views are too many at once: draw fewer places of a map")
    with temporary_folder("arena") as home:
        name = str(home)
        (home / "baseoa").mkdir()
        (home / "baseoa" / "views.cfg").write_text(script)
        cvars = {
            **_CVARS,
            "fs_homepath": name,
            "r_customwidth": str(size[0]),
            "r_customheight": str(size[1]),
        }
        words = [word for key, value in cvars.items() for word in ("+set", key, value)]
        screen = f"-screen 0 {max(size[0], 640)}x{max(size[1], 480)}x24"
        command = ["xvfb-run", "-a", "-s", screen, str(GAME), *words]
        command += ["+devmap", map_name, "+exec", "views.cfg"]
        try:
            done = subprocess.run(
                command,
                cwd=home,
                env={**os.environ, "HOME": name, "LIBGL_ALWAYS_SOFTWARE": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_START_S + _VIEW_S * len(views),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ToolError(f"OpenArena did not finish drawing {map_name}") from None
        shots = home / "baseoa" / "screenshots"
        missing = [view for view in views if not (shots / f"{view}.jpg").is_file()]
        if missing:
            last = done.stdout.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise ToolError(f"OpenArena drew no view {missing[0]} of {map_name}: {last}")
        return {view: _read(shots / f"{view}.jpg") for view in views}


def _read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
