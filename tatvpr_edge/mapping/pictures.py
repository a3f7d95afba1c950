"""Image files to pixels: the one decoder of the command line, training, evaluation and tools."""

from __future__ import annotations

import os
import stat
import threading
import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.spec.errors import DataError
from tatvpr_edge.spec.placemap import MAGIC
from tatvpr_edge.spec.shortage import refuse_shortage
from tatvpr_edge.spec.values import path as check_path

if TYPE_CHECKING:
    from PIL.Image import Image

Frame = NDArray[np.uint8]

#: What is read, by Pillow's names. It knows forty more kinds; one, EPS, has Ghostscript run what is
#: in the file, and anybody on a robot's network may send such a file as an image.
_KINDS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")
#: What is done about warnings, the whole process does: two threads would undo each other's.
_OPENING = threading.Lock()


def read_frame(source: str | os.PathLike[str] | Image | BytesIO) -> Frame:
    """Pixels uint8 [H, W, 3] of an image file, of its bytes or of a Pillow image, in RGB, upright
    as its EXIF says.

    Gray becomes three equal channels, palettes are looked up, CMYK is converted, transparency is
    dropped, and 16-bit gray keeps its upper byte.

    Raises:
        DataError: the file is missing, no image, cut short, or absurdly large.
    """
    return np.asarray(open_rgb(source))


def open_rgb(source: str | os.PathLike[str] | Image | BytesIO) -> Image:
    """As :func:`read_frame`, but a Pillow image of mode RGB, decoded.

    Raises:
        DataError: as :func:`read_frame`.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, Image.Image):
        return _decoded(source, "the image")
    if isinstance(source, BytesIO):
        path: object = "the image"
        file: Path | BytesIO = source
    else:
        path = file = check_path(source, "the picture", "a file, its bytes, or a Pillow image")
    try:
        if isinstance(file, Path) and not stat.S_ISREG(os.stat(file).st_mode):
            raise DataError(f"{path} is no file but a folder, a pipe or a device: remove it")
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged EXIF, which then turns nothing
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(file, formats=_KINDS)
            if "exif" in opened.info:
                opened.getexif()
                del opened.info["exif"]  # the turned picture would read it once more
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(f"{path}: too many pixels to be a camera's frame; shrink it") from None
    except UnidentifiedImageError:
        raise _no_image(path, file) from None
    except Exception as error:
        raise _damaged(path, error) from None
    with opened:
        return _decoded(opened, path)


def _no_image(path: object, file: Path | BytesIO) -> DataError:
    """What to do about a file of another kind; MAP of ``evaluate`` reads like a place map."""
    if isinstance(file, Path):
        with file.open("rb") as source:
            if source.read(len(MAGIC)) == MAGIC:
                return DataError(
                    f"{path} is a place map: give the frames that it was made of ('tatvpr-edge "
                    "map merge' joins maps)"
                )
    return DataError(
        f"{path} is no image that can be read: expected JPEG, PNG, WebP, BMP, TIFF or PPM"
    )


def _decoded(image: Image, name: object) -> Image:
    """``image`` upright and in RGB."""
    from PIL import Image, ImageOps

    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):
            deep = np.asarray(upright).astype(np.int64)
            return Image.fromarray(np.clip(deep >> 8, 0, 255).astype(np.uint8)).convert("RGB")
        return cast("Image.Image", upright.convert("RGB"))
    # Pillow's decoders raise a dozen classes (struct.error, EOFError, zlib.error, IndexError ...)
    # at a file cut short or written over: all of them mean the same to a user.
    except Exception as error:
        raise _damaged(name, error) from None


def _damaged(name: object, error: Exception) -> DataError:
    refuse_shortage(error, f"{name}")
    return DataError(f"{name} is damaged ({error}): replace it or remove it")
