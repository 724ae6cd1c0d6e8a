"""What an engine's errors become."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from audioproto.errors import AudiodError, EngineFailed, OutOfMemory, VoiceNotFound
from audioproto.types import EngineSpec
from audioworker.engine import typed


class OutOfMemoryError(RuntimeError):
    """torch.OutOfMemoryError, by its name."""


class Fail(Exception):
    """onnxruntime's."""


Fail.__module__ = "onnxruntime.capi.onnxruntime_pybind11_state"


def too_large() -> Exception:
    with pytest.raises(MemoryError) as raised:
        np.zeros(1 << 60, np.uint8)
    return raised.value


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        too_large(),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        OutOfMemoryError("whatever the next version says"),
        RuntimeError("CUDA failed with error out of memory"),
        RuntimeError("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("mkl_malloc: failed to allocate memory"),
        RuntimeError("failed to allocated memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"),
        Fail("[ONNXRuntimeError] : 1 : FAIL : Load model from model.onnx failed:std::bad_alloc"),
        Fail(
            "[ONNXRuntimeError] : 1 : FAIL : bfc_arena.cc:360 void* onnxruntime::BFCArena::AllocateRawInternal(size_t)"
        ),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=str,
)
def test_want_of_memory_is_known_however_a_library_puts_it(error: Exception) -> None:
    made = typed(error)
    assert type(made) is OutOfMemory
    assert made.http_status == 507
    assert str(error) in made.message


def test_where_a_staged_model_runs_out_what_bounds_it_is_to_be_raised() -> None:
    spec = EngineSpec("indextts2", "tts", "", memory_bytes=3 * 2**30)
    on_a_gpu, on_the_host = typed(OutOfMemoryError("CUDA out of memory"), spec), typed(MemoryError(), spec)
    assert "3072 MiB that it is staged in" in on_a_gpu.message
    assert on_a_gpu.hint == "raise staged_bytes in tts's file, then: audioctl reload"
    assert "audioctl status" in on_the_host.hint


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("The generate method currently requires the same number of task tokens"),
        ValueError("no voice can say: 'I am out of memory'"),
        KeyError("out of memory"),
        OSError(errno.ENOSPC, "No space left on device"),
        Fail("[ONNXRuntimeError] : 3 : NO_SUCHFILE : Load model failed. File doesn't exist"),
    ],
    ids=repr,
)
def test_any_other_error_is_the_engines(error: Exception) -> None:
    made = typed(error)
    assert type(made) is EngineFailed
    assert type(error).__name__ in made.message


def test_a_typed_error_stays_what_it_is() -> None:
    error: AudiodError = VoiceNotFound("no such voice")
    assert typed(error) is error
