"""Threads change nothing but time: the same bytes for any number, and no data race."""

from __future__ import annotations

import numpy as np
import pytest
import test_core_model
from core_driver import Driver, LinearCase, build, native_compiler
from hypothesis import given
from hypothesis import strategies as st
from test_core_operators import expected_linear, linear_cases, same_bits

from support.tools import require_tool
from tatvpr_edge.spec import reference


@given(case=linear_cases(), threads=st.integers(2, 16))
def test_linear_is_the_same_with_any_number_of_threads(
    native: Driver, case: LinearCase, threads: int
) -> None:
    for kernels in native.kernels:
        same_bits(native.linear(kernels, case, threads), expected_linear(case))


def check_attention(driver: Driver, threads: int) -> None:
    rng = np.random.default_rng(threads)
    qkv = rng.standard_normal((130, 3 * 5 * 16)).astype(np.float32)
    y, a = reference.quant_attention(qkv, 5)
    for kernels in driver.kernels:
        got_y, got_a = driver.attention(kernels, qkv, 5, threads)
        same_bits(got_y, y)
        same_bits(got_a, a)


@pytest.mark.parametrize("threads", [2, 3, 16])
def test_attention_and_whole_model_with_threads(native: Driver, threads: int) -> None:
    check_attention(native, threads)
    test_core_model.check_whole(native, (threads,))


def test_threads_that_the_system_does_not_give_are_told_and_leave_nothing(native: Driver) -> None:
    """Some of fifteen find room for their stacks; they are ended, and the next call goes well."""
    limits = ("--as=100000000", "--stack=8388608:")  # which some systems do not limit
    limited = Driver([require_tool("prlimit", "util-linux"), *limits, *native.process.args])
    for threads, status in ((16, "ERR_THREADS"), (2, "OK"), (16, "ERR_THREADS"), (0, "OK")):
        got, descriptor, _ = test_core_model.run(limited, "portable", threads=threads)
        assert got == test_core_model.STATUS[f"TATVPR_{status}"]
        assert (got == 0) == (descriptor.view(np.uint8) != 0xA5).any()  # else as it was
    limited.close()


@pytest.mark.slow
def test_no_data_race(tmp_path_factory: pytest.TempPathFactory, native_arch: str) -> None:
    folder = tmp_path_factory.mktemp("races")
    flags = ("-O2", "-g1", "-fsanitize=thread")
    driver = Driver([str(build(native_arch, native_compiler(), flags, folder / "driver"))])
    for threads in (2, 4):
        check_attention(driver, threads)
        test_core_model.check_whole(driver, (threads,))
    driver.close()
