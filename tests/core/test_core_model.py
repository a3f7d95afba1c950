"""The public C interface on a whole model: the reference's bytes, and one status for each fault."""

from __future__ import annotations

import math

import numpy as np
import pytest
from core_driver import Driver
from small_vit import DIM, SmallVit, seal

MODEL = SmallVit()
FRAME = np.random.default_rng(1).integers(0, 256, (48, 40, 3)).astype(np.uint8)
FAULTS = {
    1: "TATVPR_ERR_ARENA",
    2: "TATVPR_ERR_ALIGNMENT",
    3: "TATVPR_ERR_NULL",
    4: "TATVPR_ERR_NULL",
    5: "TATVPR_ERR_ABI",
    6: "TATVPR_OK",
    7: "TATVPR_ERR_NULL",
    8: "TATVPR_ERR_BLOB_TRUNCATED",
    9: "TATVPR_ERR_KERNELS",
    11: "TATVPR_ERR_ALIGNMENT",
    12: "TATVPR_OK",
    13: "TATVPR_ERR_ARGUMENT",
}


def status_names() -> dict[str, int]:
    """The status codes as the public header states them."""
    import re

    from tatvpr_edge.compilers.core_sources import core_include

    text = (core_include() / "tatvpr.h").read_text()
    return {
        name: int(value) for name, value in re.findall(r"(TATVPR_(?:OK|ERR_\w+)) = (\d+)", text)
    }


STATUS = status_names()


def run(
    driver: Driver,
    kernels: str,
    k: float = 0.2,
    tokens: float = 1.0,
    fault: int = 0,
    threads: int = 1,
    blob: bytearray | None = None,
) -> tuple[int, np.ndarray, np.ndarray]:
    """(status, descriptor, last tokens) of one describe."""
    height, width = FRAME.shape[:2]
    status, (descriptor, last) = driver.call(
        "model",
        kernels,
        (width, height, fault, threads),
        (k, tokens),
        (MODEL.blob() if blob is None else blob, FRAME.tobytes()),
    )
    return status, descriptor.view(np.float32), last.view(np.float32).reshape(-1, DIM)


def check_whole(driver: Driver, threads: tuple[int, ...] = (0, 1)) -> None:
    """Descriptor and last tokens are the reference's bytes, for every kernel variant."""
    for k, tokens in ((1.0, 1.0), (0.4, 0.5), (0.2, 1.0), (0.05, 0.1)):
        descriptor, last = MODEL.describe(FRAME, k, tokens)
        for kernels in driver.kernels:
            for count in threads:
                status, got, got_last = run(driver, kernels, k, tokens, threads=count)
                assert status == 0, (kernels, status)
                np.testing.assert_array_equal(got.view(np.uint32), descriptor.view(np.uint32))
                rows = got_last[: last.shape[0]]
                np.testing.assert_array_equal(rows.view(np.uint32), last.view(np.uint32))


def test_descriptor_and_tokens_are_the_references_bytes(native: Driver) -> None:
    check_whole(native)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_of_a_caller_has_its_status(native: Driver, fault: int) -> None:
    for kernels in native.kernels:
        status, descriptor, _ = run(native, kernels, fault=fault)
        assert status == STATUS[FAULTS[fault]], kernels
        if status != 0:  # an error leaves the caller's descriptor alone
            assert (descriptor.view(np.uint8) == 0xA5).all()


def test_prepared_weights_need_their_room(native: Driver) -> None:
    for kernels in native.kernels:
        expected = "TATVPR_OK" if kernels == "portable" else "TATVPR_ERR_ARGUMENT"
        assert run(native, kernels, fault=10)[0] == STATUS[expected]


@pytest.mark.parametrize("k", [0.0, -0.2, 1.0001, math.nan, math.inf])
def test_k_and_tokens_outside_their_range_are_refused(native: Driver, k: float) -> None:
    assert run(native, "portable", k=k)[0] == STATUS["TATVPR_ERR_K"]
    assert run(native, "portable", tokens=k)[0] == STATUS["TATVPR_ERR_TOKENS"]


@pytest.mark.parametrize("threads", [-1, 17, 2**31 - 1])
def test_threads_outside_their_range_are_refused(native: Driver, threads: int) -> None:
    assert run(native, "portable", threads=threads)[0] == STATUS["TATVPR_ERR_THREADS"]


def test_weights_are_checked_before_use(native: Driver) -> None:
    def status(blob: bytearray) -> int:
        return run(native, "portable", blob=blob)[0]

    good = MODEL.blob()
    for at in (70, len(good) // 2, len(good) - 1):
        bad = bytearray(good)
        bad[at] ^= 1
        assert status(bad) == STATUS["TATVPR_ERR_BLOB_CRC"]
    for cut in (0, 1, 63, 64, 1000, len(good) - 1):
        assert status(good[:cut]) == STATUS["TATVPR_ERR_BLOB_TRUNCATED"]
    header = {0: "MAGIC", 8: "VERSION", 12: "LAYOUT", 24: "CRC", 28: "VERSION", 40: "MODEL"}
    for at, name in header.items():
        bad = bytearray(good)
        bad[at] ^= 1
        assert status(bad) == STATUS[f"TATVPR_ERR_BLOB_{name}"]
    assert status(seal(bytearray(good), version=2)) == STATUS["TATVPR_ERR_BLOB_VERSION"]
    longer = seal(bytearray(good) + bytes(64))  # sealed well, but not what the program knows
    assert status(longer) == STATUS["TATVPR_ERR_BLOB_TRUNCATED"]
    assert status(good + bytes(100)) == 0  # a flash region is longer than its weights


def test_a_descriptor_that_is_not_finite_is_not_returned(native: Driver) -> None:
    model = SmallVit()
    model.norms[2] = (np.full(DIM, np.nan, np.float32), model.norms[2][1])
    for kernels in native.kernels:
        status, descriptor, _ = run(native, kernels, blob=model.blob())
        assert status == STATUS["TATVPR_ERR_NOT_FINITE"]
        assert (descriptor.view(np.uint8) == 0xA5).all()


def test_activations_that_are_not_finite_break_nothing(native: Driver) -> None:
    """Their values are unspecified; the sanitized run of this test shows that nothing else is."""
    for value in (np.nan, np.inf, -np.inf, 3e38):
        model = SmallVit()
        model.positions[3, 5] = value
        for kernels in native.kernels:
            status, _, _ = run(native, kernels, blob=model.blob())
            assert status in (0, STATUS["TATVPR_ERR_NOT_FINITE"])
