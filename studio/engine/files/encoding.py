"""Text files as UTF-8, whatever they are in: read in the encoding that they are in for certain, or in the one that was named."""

import codecs
import io
import re
from pathlib import Path
from typing import BinaryIO

from studio.engine.files.charsets import NAMES, is_certain, likely, readings
from studio.engine.files.lines import How
from studio.errors import DataError, EncodingDoubt

CHUNK = 1024**2
SAMPLE = 64 * 1024
"""Bytes of lines with special characters by which an encoding is guessed."""

# UTF-32 first: its mark begins with that of UTF-16.
MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
         (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


# --- reading ----------------------------------------------------------------------------------------------------------


class _Recoded(io.RawIOBase):
    """A file of another Unicode encoding, read as UTF-8."""

    def __init__(self, file: BinaryIO, encoding: str):
        self._file, self._decoder = file, codecs.getincrementaldecoder(encoding)()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        fresh = b""
        # Half of the buffer, since two bytes of UTF-16 can become three of UTF-8.
        while not fresh and (read := self._file.read(len(buffer) // 2)):
            fresh = self._decoder.decode(read).encode()
        buffer[: len(fresh)] = fresh
        return len(fresh)

    def close(self) -> None:
        self._file.close()
        super().close()


def opened(path: Path, encoding: str = "") -> BinaryIO:
    """The text as UTF-8 bytes without a byte order mark. `settled` has seen the file before and said the encoding."""
    file = open(path, "rb")  # noqa: SIM115 (whoever asked for it closes it)
    mark, marked = _mark(file)
    file.seek(len(mark))
    encoding = encoding if encoding and not mark else marked
    return file if encoding == "utf-8" else io.BufferedReader(_Recoded(file, encoding), 1 << 16)


def settled(path: Path, how: How) -> str:
    """The encoding to read a text in: the one that was named, or the one that it is in for certain, which is then remarked.

    Raises EncodingDoubt where several are possible, and DataError for what is no text, or damaged, naming the first bad line.
    A character that the end of the file cuts in two is none of its business: only the last row suffers from it.
    """
    with open(path, "rb") as file:
        mark, marked = _mark(file)
        file.seek(len(mark))
        wide = "" if mark or how.encoding else _wide(file.read(4096))
        encoding = marked if mark else _known(how.encoding) or wide or "utf-8"
        line = _first_bad_line(file, len(mark), encoding)
        file.seek(0)
        sample = _special_lines(file) if line and encoding == "utf-8" and not mark else b""
    if not line:
        if wide:
            how.remarks.append(f"{path.name} is in UTF-16 and is read so; the file itself stays as it is.")
        return encoding
    if mark:
        raise DataError(f"{path.name}, line {line}, is damaged: the file begins as {encoding.upper()} and does not go on so. "
                        "Save it again as UTF-8.")
    if encoding != "utf-8":
        raise DataError(f"{path.name}, line {line}, is not {NAMES.get(encoding, encoding)}. Choose another encoding, or empty the field.")
    return _guessed(path, how, line, sample)


def _guessed(path: Path, how: How, line: int, sample: bytes) -> str:
    text = sample.decode("utf-8", "surrogateescape")
    broken = sum("\udc80" <= character <= "\udcff" for character in text)
    if broken < sum(character > "\x7f" for character in text) - broken or not broken:
        raise DataError(f"{path.name}, line {line}, is not UTF-8, though other lines are. Repair or delete that line.")
    found = [] if re.search(rb"[\x00-\x08\x0e-\x1a]", sample) else readings(sample)  # no text has these, whatever the encoding
    with open(path, "rb") as file:
        found = [one for one in found if not _first_bad_line(file, 0, one.encoding)]
    if not found:
        raise DataError(f"{path.name}, line {line}, is not UTF-8, nor text in an encoding that is known here. "
                        "Open it in the program that it comes from and save it as UTF-8.")
    if not is_certain(found):
        raise EncodingDoubt(path, line, [(one.encoding, NAMES[one.encoding], one.sample) for one in likely(found)])
    encoding = found[0].encoding
    how.remarks.append(f"{path.name} is in {NAMES[encoding]} ({encoding}) and not in UTF-8, as line {line} shows: “{found[0].sample}”. "
                       "It is read so; the file itself stays as it is.")
    return encoding


def _known(encoding: str) -> str:
    """Python's name for an encoding of texts, or nothing for nothing. Raises DataError for an unknown one."""
    if not encoding:
        return ""
    try:
        found = codecs.lookup(encoding)
        if not getattr(found, "_is_text_encoding", True):
            raise LookupError
    except LookupError as error:
        raise DataError(f"There is no encoding “{encoding[:40]}”. Choose one such as {', '.join(list(NAMES)[:2])} or gb18030.") from error
    return found.name


def _mark(file: BinaryIO) -> tuple[bytes, str]:
    """The byte order mark at the beginning and the encoding that it stands for."""
    head = file.read(4)
    return next(((mark, encoding) for mark, encoding in MARKS if head.startswith(mark)), (b"", "utf-8"))


def _first_bad_line(file: BinaryIO, start: int, encoding: str) -> int:
    """The number of the first line that is not in the encoding, or 0."""
    file.seek(start)
    decoder, line, pending = codecs.getincrementaldecoder(encoding)(), 1, False
    while chunk := file.read(CHUNK):
        if encoding == "utf-8" and not pending and chunk.isascii():
            line += chunk.count(b"\n")
            continue
        try:
            line += decoder.decode(chunk).count("\n")
        except UnicodeDecodeError as error:
            return line + error.object[: error.start].decode(encoding, "ignore").count("\n")
        pending = bool(decoder.getstate()[0])
    return 0


def _wide(head: bytes) -> str:
    """UTF-16 without its mark: every other byte of most texts is zero then."""
    for encoding, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        if len(head) > 3 and zeros.count(0) > 0.4 * len(zeros) and head.count(0) < 0.6 * len(head):
            return encoding
    return ""


def _special_lines(file: BinaryIO) -> bytes:
    """The first lines that hold more than ASCII, enough of them to guess by."""
    found, size = [], 0
    while size < SAMPLE and (line := file.readline(SAMPLE)):
        if not line.isascii():
            found.append(line)
            size += len(line)
    return b"".join(found)
