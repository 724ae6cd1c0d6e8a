"""Opens the header of a safetensors file: whether what it says of its tensors is what the file has.

Reads no tensor and no number in one. Source: the safetensors README, "Format".
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

from audioproto.errors import InstallFailed

_LENGTH = struct.Struct("<Q")
_HEADER_LIMIT_BYTES = 100_000_000
"""As the library's own reader has it."""

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
}  # fmt: skip


def check(file: Path) -> int:
    """The number of tensors. Raises InstallFailed where the file is cut, is something else or contradicts itself."""
    try:
        return _check(file)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise InstallFailed(f"{file.name} is no whole safetensors file: {error}") from error


def _check(file: Path) -> int:
    size = file.stat().st_size
    with file.open("rb") as opened:
        (length,) = _LENGTH.unpack(opened.read(_LENGTH.size))
        if length > min(_HEADER_LIMIT_BYTES, size - _LENGTH.size):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        header = json.loads(opened.read(length))
    tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1]["data_offsets"]):
        begin, after = tensor["data_offsets"]
        if begin != end:
            raise ValueError(f"tensor {name} begins at {begin}, and what is before it ends at {end}")
        bits = _BITS.get(tensor["dtype"])
        if bits is not None and (after - begin) * 8 != bits * math.prod(tensor["shape"]):
            raise ValueError(f"tensor {name} of {tensor['shape']} {tensor['dtype']} has {after - begin} bytes")
        end = after
    if _LENGTH.size + length + end != size:
        raise ValueError(f"its tensors end at byte {_LENGTH.size + length + end} of {size}")
    return len(tensors)
