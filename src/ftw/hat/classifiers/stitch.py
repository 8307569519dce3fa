"""Weights of several level files as one tensor without a copy: their pages are mapped side by side.

Fresh memory is as slow to get as bytes from a disk (a fault and a zeroed page for each 4 kB), so that a loader which
copies takes twice as long as one that maps. Level files are written so that this works: the large weights stand first,
from a page boundary on, and their lengths are whole pages for every usual model width.

The rule of the file: a mapping is private, so that nobody's writing reaches the file, and lives as long as its tensor.
"""

import ctypes
import mmap
import os
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from ftw.substrate.errors import StorageError

PAGE = 4096
"""What level files are aligned to. Systems with larger pages copy."""
_FIXED = 0x10
_FAILED = ctypes.c_void_p(-1).value


class Piece(NamedTuple):
    """The bytes [start, stop) of a file."""

    file: Path
    start: int
    stop: int


def can_stitch(pieces: Sequence[Piece]) -> bool:
    """Whether the pieces are whole pages that this system can put side by side."""
    whole = all(piece.start % PAGE == 0 and (piece.stop - piece.start) % PAGE == 0 for piece in pieces)
    return whole and sys.platform == "linux" and mmap.PAGESIZE == PAGE and all(p.stop > p.start for p in pieces)


def stitch(pieces: Sequence[Piece]) -> UInt8[Tensor, " byte"]:
    """The bytes of the pieces, one after another, as a tensor over their pages. The system begins to fetch them.

    Raises StorageError where a file cannot be mapped. Ask `can_stitch` first.
    """
    total = sum(piece.stop - piece.start for piece in pieces)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    base = libc.mmap(None, total, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if base == _FAILED:
        raise StorageError(f"no room to map {total} bytes of {pieces[0].file}: {os.strerror(ctypes.get_errno())}")
    room = (ctypes.c_ubyte * total).from_address(base)
    weakref.finalize(room, libc.munmap, base, total).atexit = False  # tensors may outlive every exit hook
    at = 0
    for piece in pieces:
        size = piece.stop - piece.start
        try:
            handle = os.open(piece.file, os.O_RDONLY)
        except OSError as error:
            raise StorageError(f"{piece.file} cannot be read: {error.strerror}; check the path") from error
        try:
            os.posix_fadvise(handle, piece.start, size, os.POSIX_FADV_WILLNEED)
            flags = mmap.MAP_PRIVATE | _FIXED
            found = libc.mmap(base + at, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, handle, piece.start)
        finally:
            os.close(handle)
        if found == _FAILED:
            raise StorageError(f"{piece.file} cannot be mapped: {os.strerror(ctypes.get_errno())}; copy it elsewhere")
        at += size
    return torch.frombuffer(room, dtype=torch.uint8)
