"""One running map of ViZDoom: put the camera somewhere, take a frame and its true pose."""

from __future__ import annotations

import contextlib
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rendering.light import Light
from rendering.walls import Walls
from tatvpr_edge.spec.atomic import temporary_folder
from tatvpr_edge.spec.errors import DataError, ToolError

UNITS_PER_METRE = 32.0
EYE_HEIGHT = 41.0  # of the player above the floor once the engine has settled


@dataclass(frozen=True)
class Spot:
    """A camera position in map units with a heading and a pitch in degrees."""

    x: float
    y: float
    heading: float
    pitch: float = 0.0


@dataclass(frozen=True)
class Pose:
    """What the engine reports of its camera: metres and degrees."""

    x: float
    y: float
    z: float
    heading: float
    pitch: float

    def quaternion(self) -> tuple[float, float, float, float]:
        """Return (x, y, z, w) of Rz(heading) Ry(pitch)."""
        yaw, pitch = math.radians(self.heading) / 2, math.radians(self.pitch) / 2
        return (
            -math.sin(yaw) * math.sin(pitch),
            math.cos(yaw) * math.sin(pitch),
            math.sin(yaw) * math.cos(pitch),
            math.cos(yaw) * math.cos(pitch),
        )


class Scene:
    """One running map: put the camera somewhere, take a frame. Use as a context manager."""

    _TURN_TICS = 12  # the engine needs a few tics to settle after a jump

    def __init__(self, map_name: str, size: tuple[int, int], seed: int) -> None:
        try:
            import vizdoom
        except ImportError as error:
            raise ToolError(f"ViZDoom cannot be loaded ({error}): pip install vizdoom") from error
        self._engine = vizdoom
        self._size = size
        self._held = contextlib.ExitStack()
        self._scratch = self._held.enter_context(temporary_folder("scene"))
        self._light = Light().visibility
        self._game = game = vizdoom.DoomGame()
        wad = Path(vizdoom.__file__).parent / _wad_of(map_name)
        game.set_doom_config_path(str(self._scratch / "engine.ini"))
        game.set_doom_game_path(str(wad))
        game.set_doom_map(map_name)
        small = size[0] <= 320 and size[1] <= 240
        resolution = vizdoom.ScreenResolution
        game.set_screen_resolution(resolution.RES_320X240 if small else resolution.RES_640X480)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_mode(vizdoom.Mode.PLAYER)
        for part in ("hud", "weapon", "crosshair", "messages", "screen_flashes", "corpses"):
            getattr(game, f"set_render_{part}")(False)
        button = vizdoom.Button
        game.set_available_buttons([button.TURN_LEFT_RIGHT_DELTA, button.LOOK_UP_DOWN_DELTA])
        game.set_objects_info_enabled(True)
        game.set_sectors_info_enabled(True)
        game.set_episode_timeout(0)
        game.set_seed(seed)
        # No "A secret is revealed!" across the picture.
        game.add_game_args("-nomonsters +sv_cheats 1 +cl_showsecretmessage 0")

    def __enter__(self) -> Scene:
        home = os.getcwd()
        os.chdir(self._scratch)  # the engine makes a folder where it is started
        try:
            self._game.init()
        except Exception as error:  # ViZDoom's own exceptions share no base class
            self.close()
            raise ToolError(f"the engine did not start: {error}") from error
        finally:
            os.chdir(home)
        self._game.send_game_command("god")
        self._game.make_action([0, 0], 10)
        state = self._game.get_state()
        self.things = np.array(
            [(o.position_x, o.position_y) for o in state.objects if o.name != "DoomPlayer"]
        ).reshape(-1, 2)
        lines = {
            (line.x1, line.y1, line.x2, line.y2)
            for sector in state.sectors
            for line in sector.lines
            if line.is_blocking
        }
        self.walls = Walls(np.array(sorted(lines)).reshape(-1, 4))
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the engine and remove its scratch files."""
        self._game.close()
        self._held.close()

    def take(self, spot: Spot, light: Light) -> tuple[Pose, NDArray[np.uint8]] | None:
        """Return the pose and the frame (uint8 [height, width, 3]) at `spot`.

        None when the engine did not put the camera there: inside a thing, under a low ceiling,
        on a moving floor.
        """
        if light.visibility != self._light:
            self._game.send_game_command(f"r_visibility {light.visibility:.3f}")
            self._light = light.visibility
        x, y = round(spot.x), round(spot.y)  # the engine's warp takes whole units
        self._game.send_game_command(f"warp {x} {y}")
        for tic in range(self._TURN_TICS):
            turn = wrap(spot.heading - self._read("CAMERA_ANGLE"))
            tilt = spot.pitch - self._read("CAMERA_PITCH")
            above = self._read("CAMERA_POSITION_Z") - self._read("POSITION_Z")
            settled = abs(above - EYE_HEIGHT) < 0.5
            # the engine jumps with its next tic: before it, this is where the camera was
            if tic and settled and abs(turn) < 0.5 and abs(tilt) < 0.5:
                break
            self._game.make_action([-turn, -tilt])
            if self._game.is_episode_finished():
                raise DataError("the engine ended the map: a spot lies on its exit")
        else:
            return None
        px, py = self.where()
        if math.hypot(px - x, py - y) > 2.0:
            return None
        pose = Pose(
            px / UNITS_PER_METRE,
            py / UNITS_PER_METRE,
            self._read("CAMERA_POSITION_Z") / UNITS_PER_METRE,
            self._read("CAMERA_ANGLE"),
            self._read("CAMERA_PITCH"),
        )
        return pose, fit(self._game.get_state().screen_buffer, self._size)

    def where(self) -> tuple[float, float]:
        """Where the camera is, in map units."""
        return self._read("CAMERA_POSITION_X"), self._read("CAMERA_POSITION_Y")

    def _read(self, name: str) -> float:
        return float(self._game.get_game_variable(getattr(self._engine.GameVariable, name)))


def wrap(degrees: float) -> float:
    return (degrees + 180.0) % 360.0 - 180.0


def _wad_of(map_name: str) -> str:
    return "freedoom2.wad" if map_name.startswith("map") else "freedoom1.wad"


def fit(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Crop the middle of `frame` to the aspect of `size` (width, height) and resize it."""
    height, width = frame.shape[:2]
    crop_w = min(width, round(height * size[0] / size[1]))
    crop_h = min(height, round(width * size[1] / size[0]))
    left, top = (width - crop_w) // 2, (height - crop_h) // 2
    box = (left, top, left + crop_w, top + crop_h)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX, box=box))
