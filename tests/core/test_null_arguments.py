"""Each pointer of each public C function null, each structure's size never set: a status or nothing
done, never a crash."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.tools import require_tool
from tatvpr_edge.compilers.core_sources import core_folder, core_include
from tatvpr_edge.runtime.mapjournal import append, journal_path
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

HERE = Path(__file__).parent
HEADERS = (
    "include/tatvpr.h",
    "include/tatvpr_track.h",
    "governor/tatvpr_governor.h",
    "firmware/tatvpr_selftest.h",
)
#: Variables of valid_arguments.h that are not called as the parameter is.
OTHER_NAMES = {
    ("tatvpr_kernels_name", "index"): "index_",
    ("tatvpr_frame_structure", "levels"): "structure",
    ("tatvpr_governor_init", "levels"): "points",
    ("tatvpr_governor_init", "kind"): "TATVPR_BUDGET_POWER",
    ("tatvpr_governor_frontier", "kind"): "TATVPR_BUDGET_POWER",
    ("tatvpr_map_tag", "bytes"): "tag_bytes",
    ("tatvpr_journal_tag", "bytes"): "tag_bytes",
    ("tatvpr_journal_tag", "place"): "added_place",
    ("tatvpr_journal_bytes", "bytes"): "journal_file",
    ("tatvpr_journal_bytes", "size"): "journal_size",
    ("tatvpr_journal_bytes", "room_bytes"): "room_needed",
    ("tatvpr_journal_open", "bytes"): "journal_file",
    ("tatvpr_journal_open", "size"): "journal_size",
    ("tatvpr_track_bytes", "places"): "track_places",
    ("tatvpr_track_init", "places"): "track_places",
    ("tatvpr_track_init", "bytes"): "memory_bytes",
    ("tatvpr_track_move", "places"): "more_places",
    ("tatvpr_track_move", "memory"): "larger",
    ("tatvpr_track_move", "bytes"): "memory_bytes",
    ("tatvpr_track_step", "found"): "tracked",
}
#: Pointers that the headers let be null: the call does as it does with all of them.
MAY_BE_NULL = {
    ("tatvpr_prepared_bytes", "kernels"),
    ("tatvpr_model_init", "kernels"),
    ("tatvpr_model_searcher", "kernels"),
    ("tatvpr_map_open", "model"),
    ("tatvpr_map_search", "model"),
    ("tatvpr_map_look", "journal"),
    ("tatvpr_journal_search", "journal"),
    ("tatvpr_journal_search", "model"),
    ("tatvpr_places_search", "model"),
    ("tatvpr_governor_init", "tuning"),
}
OK, NULL, ABI = 0, 1, 2  # TATVPR_OK, TATVPR_ERR_...
#: They look at nothing that a size says: what was opened is known by its pointers.
TAGS = ("tatvpr_map_tag", "tatvpr_journal_tag")
#: What is answered where it is no status: nothing needed, nothing usable, no levels, the cheapest.
WITHOUT = {"tatvpr_governor_init": -1, "tatvpr_selftest": -1}
#: A function, and its parameter that is null, or "PARAMETER.size" that is not set; "" for neither.
Call = tuple[str, str]


def functions() -> Iterator[tuple[str, str, list[str]]]:
    """(what it returns, its name, its parameters) of each public function."""
    for header in HEADERS:
        text = re.sub(r"/\*.*?\*/", "", (core_folder() / header).read_text(), flags=re.DOTALL)
        text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
        declared = r"^(?:TATVPR_API )?([\w ]+[ *]+)\b(tatvpr_\w+)\(([^()]*)\);"
        for returned, name, parameters in re.findall(declared, text, re.MULTILINE):
            words = " ".join(parameters.split())
            yield returned.strip(), name, [] if words == "void" else words.split(", ")


def calls() -> Iterator[tuple[Call, str]]:
    """Each call with nothing wrong, with one pointer null and with one size that is any number, and
    the C that prints its answer."""
    text = "".join((core_folder() / header).read_text() for header in HEADERS)
    sized = set(re.findall(r"^typedef struct (\w+) \{\n +uint32_t size;", text, re.MULTILINE))
    for returned, name, parameters in functions():
        names = [re.findall(r"\w+", parameter)[-1] for parameter in parameters]
        pointers = [own for own, whole in zip(names, parameters, strict=True) if "*" in whole]
        unset = [
            f"{own}.size"
            for own, whole in zip(names, parameters, strict=True)
            if "*" in whole and sized & set(re.findall(r"\w+", whole)) and name not in TAGS
        ]
        for null in ["", *pointers, *unset]:
            given = ["NULL" if own == null else OTHER_NAMES.get((name, own), own) for own in names]
            call = f"{name}({', '.join(given)})"
            if returned == "void":
                answer = f"({call}, 0L)"
            elif "*" in returned:
                answer = f"(long)({call} == NULL)"
            else:
                answer = f"(long){call}"
            held = OTHER_NAMES.get((name, null.removesuffix(".size")), null.removesuffix(".size"))
            forget = f"{held}->size = UNSET; " if null in unset else ""
            yield (name, null), f'ready(); {forget}say("{name} {null}", {answer});'


@pytest.fixture(scope="module")
def answers(tiny_host: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Call, int]:
    """What each call answers, up to the first that crashes."""
    folder = tmp_path_factory.mktemp("null")
    model = read_artifact(tiny_host).manifest.model
    info = MapInfo(model.hash, "int8", model.descriptor_size, (Band(1.0),))
    rows = np.random.default_rng(1).standard_normal((4, info.dim)).astype(np.float32)
    places = make_places(info, [rows], np.eye(4, 7, 3), ["tag"] * 4)
    path = folder / "m.placemap"
    write_map(path, info, [places])
    append(path, places)
    body = "\n    ".join(line for _, line in calls())
    source = folder / "calls.c"
    source.write_text(f"""#include "valid_arguments.h"
#define UNSET 0x20001000u
static void say(const char *call, long answer) {{
    printf("%s %ld\\n", call, answer);
    fflush(stdout);
}}
int main(int argc, char **argv) {{
    for (int i = 1; i < argc && i < 4; i++) {{
        snprintf(words[i - 1], sizeof(words[0]), "%s", argv[i]);
    }}
    {body}
    return 0;
}}
""")
    includes = [HERE, core_include(), core_folder() / "governor", core_folder() / "firmware"]
    library = tiny_host / "lib"
    program = folder / "calls"
    command = [require_tool("cc", "gcc"), "-g", "-std=gnu11", source]
    command += [core_folder() / "firmware/selftest.c", *(f"-I{path}" for path in includes)]
    command += [f"-L{library}", f"-Wl,-rpath,{library}", "-ltatvpr_model", "-o", program]
    subprocess.run(command, check=True)
    files = [tiny_host / "weights.bin", path, journal_path(path)]
    done = subprocess.run([program, *files], capture_output=True, text=True)
    found: dict[Call, int] = {}
    for line in done.stdout.splitlines():
        name, null, answer = re.fullmatch(r"(\w+) ([\w.]*) (-?\d+)", line).groups()  # type: ignore[union-attr]
        found[name, null] = int(answer)
    if done.returncode != 0:
        crashed = next((call for call, _ in calls() if call not in found), None)
        pytest.fail(f"{crashed}: {done.returncode} {done.stderr}")
    return found


def test_no_function_is_left_out() -> None:
    for header in HEADERS[:3]:
        text = (core_folder() / header).read_text()
        stated = re.findall(r"^TATVPR_API .*?\b(tatvpr_\w+)\(", text, re.MULTILINE)
        assert set(stated) <= {name for _, name, _ in functions()}, header


def test_a_null_pointer_or_a_size_never_set_is_refused_or_does_nothing(
    answers: dict[Call, int],
) -> None:
    returns = {name: returned for returned, name, _ in functions()}
    for (name, null), answer in answers.items():
        whole = answers[name, ""]
        if null == "":
            assert returns[name] != "tatvpr_status" or whole == OK, name
        elif null.endswith(".size"):
            assert returns[name] != "tatvpr_status" or answer == ABI, (name, null)
        elif (name, null) in MAY_BE_NULL:
            assert answer == whole, (name, null)
        elif returns[name] == "tatvpr_status":
            assert answer == NULL, (name, null)
        elif returns[name] != "void":
            assert answer == WITHOUT.get(name, 0), (name, null)
