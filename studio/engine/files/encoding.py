"""Text files as UTF-8: what is not is told by its first bad line, and can be written as a UTF-8 copy."""

import codecs
import io
import os
import re
from pathlib import Path
from typing import BinaryIO

from charset_normalizer import from_bytes

from studio.errors import NOT_UTF8, DataError

CHUNK = 1024**2
SAMPLE = 64 * 1024
"""Bytes of lines with special characters by which an encoding is guessed."""

# UTF-32 first: its mark begins with that of UTF-16.
MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
         (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
LATIN = {"cp1252": "Windows-1252", "cp1250": "Windows-1250, Central European", "cp1254": "Windows-1254, Turkish",
         "mac_roman": "Mac Roman", "cp850": "DOS code page 850"}
OTHERS = {"gb18030": "GB 18030, Chinese", "big5": "Big5, Chinese", "cp932": "Shift JIS, Japanese", "euc_jp": "EUC-JP, Japanese",
          "cp949": "EUC-KR, Korean", "cp1251": "Windows-1251, Cyrillic", "cp1253": "Windows-1253, Greek",
          "cp1255": "Windows-1255, Hebrew", "cp1256": "Windows-1256, Arabic", "cp874": "Windows-874, Thai"}
WIDE = {"utf-16-le": "UTF-16", "utf-16-be": "UTF-16"}
NAMES = LATIN | OTHERS | WIDE


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


def opened(path: Path) -> BinaryIO:
    """The text as UTF-8 bytes without a byte order mark. `check` has seen the file before."""
    file = open(path, "rb")  # noqa: SIM115 (whoever asked for it closes it)
    mark, encoding = _mark(file)
    file.seek(len(mark))
    return file if encoding == "utf-8" else io.BufferedReader(_Recoded(file, encoding), 1 << 16)


def check(path: Path) -> None:
    """Raises DataError naming the first line that is not UTF-8 (or what the byte order mark says) and what it looks like.

    A character that the end of the file cuts in two is none of its business: only the last row suffers from it.
    """
    with open(path, "rb") as file:
        mark, encoding = _mark(file)
        file.seek(len(mark))
        line = 1 if not mark and _wide(file.read(4096)) else _first_bad_line(file, len(mark), encoding)
    if not line:
        return
    if mark:
        raise DataError(f"{path.name}, line {line}, is damaged: the file begins as {encoding.upper()} and does not go on so. "
                        "Save it again as UTF-8.")
    guess = looks_like(path)
    if guess == "utf-8":
        raise DataError(f"{path.name}, line {line}, is not UTF-8, though other lines are. Repair or delete that line.")
    if not guess:
        raise DataError(f"{path.name}, line {line}, is not UTF-8, nor text in an encoding that is recognised. "
                        "Open it in the program that it comes from and save it as UTF-8.")
    raise DataError(f"{path.name}, line {line}, {NOT_UTF8} {NAMES[guess]} ({guess}). "
                    "Save it as UTF-8, or press “Convert to UTF-8”.")


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


# --- guessing ---------------------------------------------------------------------------------------------------------


def looks_like(path: Path) -> str:
    """The encoding that a text file seems to have, by Python's name for it; "utf-8" too if a part is damaged, "" if unknown."""
    with open(path, "rb") as file:
        mark, encoding = _mark(file)
        file.seek(0)
        head = file.read(4096)
        if mark or (encoding := _wide(head)):
            return encoding
        file.seek(0)
        sample = _special_lines(file)
    text = sample.decode("utf-8", "surrogateescape")
    broken = sum("\udc80" <= character <= "\udcff" for character in text)
    if broken < sum(character > "\x7f" for character in text) - broken or not broken:
        return "utf-8"
    if re.search(rb"[\x00-\x08\x0e-\x1a]", sample):  # no text has these, whatever the encoding
        return ""
    found = from_bytes(sample, cp_isolation=list(NAMES)).best()
    if found is not None and found.encoding in OTHERS:
        return found.encoding
    return _latin(sample)


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


# Signs between two letters, capitals after small ones and signs that nobody types: how a Latin text looks in a wrong encoding.
STRANGE = re.compile(r"[^\W\d_][^\w\s'’‘“”„\"()\[\]{}<>.,;:!?/\\|*+=&@#%~`^$«»…–—-]+[^\W\d_]|[a-zà-öø-ÿ][À-ÖØ-ÞŠŽŸ]"
                     r"|[\x80-\x9f¦¨¬¯¸¤¢ƒˆ˜‚„‰†‡ªº¶]")
# Letters that mean another alphabet than the code page's own: Windows-1252 is not what Czechs, Hungarians and Turks save in.
FOREIGN = {"cp1252": re.compile("[šžŠŽðþýÐÞÝ]|[öüóúáéí][^\\W\\d_]{0,40}[õûÕÛ]|[õûÕÛ][^\\W\\d_]{0,40}[öüóúáéí]"), "cp1250": re.compile("[đţŕĹ]")}
ICELANDIC = re.compile("[ÞþÐð][^\\W\\d_]{0,40}[æáíóú]|[æáíóú][^\\W\\d_]{0,40}[þð]")


def _latin(sample: bytes) -> str:
    """Which of the Latin encodings gives the least strange text; the usual ones win a tie."""
    best, fewest = "", None
    for encoding in LATIN:
        try:
            text = sample.decode(encoding)
        except UnicodeDecodeError:
            continue
        strange = len(STRANGE.findall(text))
        if encoding in FOREIGN and not ICELANDIC.search(text):
            strange += len(FOREIGN[encoding].findall(text))
        if fewest is None or strange < fewest:
            best, fewest = encoding, strange
    return best


# --- converting -------------------------------------------------------------------------------------------------------


def convert(path: Path, target: Path, encoding: str) -> None:
    """Write a UTF-8 copy of a text; the original stays as it is. Raises DataError if it is not in that encoding."""
    if target.exists() and target.samefile(path):
        raise DataError(f"{path.name} cannot be converted into itself. Choose another name for the copy.")
    draft, line = target.with_name(f"{target.name}.part"), 1
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
        with open(path, "rb") as source, open(draft, "wb") as copy:
            first = True
            while chunk := source.read(CHUNK):
                text = decoder.decode(chunk)
                copy.write((text.removeprefix("\ufeff") if first else text).encode())
                line, first = line + text.count("\n"), False
            copy.write(decoder.decode(b"", final=True).encode())
        os.replace(draft, target)
    except LookupError as error:
        raise DataError(f"There is no encoding “{encoding}”. Choose one such as {', '.join(list(LATIN)[:2])} or gb18030.") from error
    except UnicodeError as error:
        line += getattr(error, "object", b"")[: getattr(error, "start", 0)].count(b"\n")
        raise DataError(f"{path.name}, line {line}, is not {NAMES.get(encoding, encoding)}. Choose another encoding.") from error
    finally:
        draft.unlink(missing_ok=True)
