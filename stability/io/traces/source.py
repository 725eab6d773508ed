"""A trace file as blocks of whole lines, decompressed, decoded and numbered."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ...errors import TraceError

READ_BYTES = 1 << 20
"""Bytes taken from the file at a time; the working arrays of one block then stay in the processor's cache."""

LONGEST_LINE_BYTES = 1 << 26
"""Beyond it the file is no table of requests."""

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive whole lines.

    Attributes
    ----------
    data : bytes
        The lines, each ended by a line feed.
    first_line : int
        Number of the first of them in the file, counted from 1.
    """

    data: bytes
    first_line: int


class TraceSource:
    """The lines of one file; raises `TraceError` with its name and line for whatever is wrong with them.

    Parameters
    ----------
    path : str or os.PathLike
        The file; gzip and zstd are told by their first bytes.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)

    def error(self, line: int, text: str) -> TraceError:
        """The error for what is wrong in one line."""
        return TraceError(f"{self.name}:{line}: {text}")

    def blocks(self) -> Iterator[Block]:
        """The file from its first line to its last."""
        rest, line = b"", 1
        for piece in self._pieces():
            head, feed, tail = piece.rpartition(b"\n")
            if not feed:
                rest += piece
                if len(rest) > LONGEST_LINE_BYTES:
                    raise self.error(
                        line, f"a line of over {LONGEST_LINE_BYTES >> 20} MiB, must be text. Give a trace."
                    )
                continue
            block = Block(self._text(rest + head + feed, line), line)
            rest, line = tail, line + block.data.count(b"\n")
            yield block
        if rest:
            yield Block(self._text(rest + b"\n", line), line)

    def _text(self, data: bytes, first_line: int) -> bytes:
        """`data` if it is UTF-8 text, without the byte-order mark of the file."""
        try:
            if not data.isascii():
                data.decode()
        except UnicodeDecodeError as error:
            line = first_line + data.count(b"\n", 0, error.start)
            raise self.error(
                line, f"byte 0x{data[error.start]:02x} is not UTF-8, the file must be. Convert it, e.g. with iconv."
            ) from None
        if b"\0" in data:
            line = first_line + data.count(b"\n", 0, data.index(b"\0"))
            raise self.error(line, "a NUL byte, the file must be text. Give a CSV or JSON-lines trace.")
        return data.removeprefix(b"\xef\xbb\xbf") if first_line == 1 else data

    def _pieces(self) -> Iterator[bytes]:
        try:
            with open(self.name, "rb") as file:
                magic = file.read(4)
                file.seek(0)
                if magic.startswith(_GZIP):
                    yield from self._gunzipped(file)
                elif magic == _ZSTD:
                    yield from self._unzstd(file)
                else:
                    yield from iter(lambda: file.read(READ_BYTES), b"")
        except FileNotFoundError:
            raise TraceError(f"{self.name} does not exist, must be a trace file. Check the path.") from None
        except IsADirectoryError:
            raise TraceError(f"{self.name} is a folder, must be a trace file. Name the file in it.") from None
        except OSError as error:
            raise TraceError(f"{self.name} cannot be read ({error.strerror or error}). Check the file.") from None

    def _gunzipped(self, file: BinaryIO) -> Iterator[bytes]:
        import gzip

        try:
            with gzip.GzipFile(fileobj=file) as stream:
                yield from iter(lambda: stream.read(READ_BYTES), b"")
        except EOFError:
            raise self._cut_off("gzip") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise self._damaged("gzip", error) from None

    def _unzstd(self, file: BinaryIO) -> Iterator[bytes]:
        import zstandard

        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            while data := file.read(READ_BYTES):
                while data:
                    if frame.eof:  # a file may hold several frames
                        frame = zstandard.ZstdDecompressor().decompressobj()
                    yield frame.decompress(data)
                    data = frame.unused_data
        except zstandard.ZstdError as error:
            raise self._damaged("zstd", error) from None
        if not frame.eof:
            raise self._cut_off("zstd")

    def _cut_off(self, kind: str) -> TraceError:
        return TraceError(f"{self.name} ends inside its {kind} stream, must be whole. Fetch or compress it again.")

    def _damaged(self, kind: str, error: Exception) -> TraceError:
        return TraceError(f"{self.name} is a damaged {kind} file ({error}). Fetch or compress it again.")
