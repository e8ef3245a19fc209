"""Files that a person brings are kept, converted when they are no UTF-8, and removed when they are of no use."""

import gzip
import json
import time

import pytest

from studio import uploads
from studio.engine import data
from studio.errors import DataError
from studio.settings import Settings
from studio.ui import sources

ROW = {"prompt": "Wie heißt du?", "chosen": "Ich heiße Ödön.", "rejected": "Weiß nicht."}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path):
    return data.read(Settings.from_form(**{"data.source": str(path)}).data)


def test_a_file_is_kept_under_its_content_and_offered_again(tmp_path):
    root = tmp_path / "runs"
    one, two = (write(tmp_path / f"{name}.jsonl", json.dumps(ROW | {"prompt": name}) * 2) for name in ("one", "two"))
    content = one.read_bytes()
    kept = [uploads.keep(root, one), uploads.keep(root, two)]
    assert not one.exists() and kept[0].read_bytes() == content, "moved, not copied"
    assert uploads.keep(root, write(one, content)) == kept[0] and kept[0].read_bytes() == content
    assert {name for _, name in sources.used_before(root, [])} == set(map(str, kept))


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le"])
@pytest.mark.fault("T2")
def test_an_upload_in_another_encoding_is_read_and_stays_as_it_is(tmp_path, encoding):
    lines = "".join(json.dumps(ROW | {"id": at}, ensure_ascii=False) + "\n" for at in range(20)).encode(encoding)
    kept = uploads.keep(tmp_path / "runs", write(tmp_path / "pairs.jsonl", lines))
    found = read(kept)
    assert found.pairs[0].chosen[0]["content"] == ROW["chosen"] and kept.read_bytes() == lines
    assert "is read so; the file itself stays as it is" in found.in_words()[0]


def test_what_no_encoding_fits_is_told_and_nothing_is_left_behind(tmp_path):
    path = write(tmp_path / "noise.csv", bytes(range(256)) * 8)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"noise.csv.*save it as UTF-8"):
        read(path)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.fault("T3", "T7")
def test_an_upload_that_cannot_be_used_is_removed_and_the_others_stay(tmp_path):
    root = tmp_path / "runs"
    good = uploads.keep(root, write(tmp_path / "good.jsonl", json.dumps(ROW) + "\n"))
    began = time.monotonic()
    bomb = uploads.keep(root, write(tmp_path / "bomb.csv", gzip.compress(b"a,b\n" * 50_000_000, 1)))
    with pytest.raises(DataError, match="compressed.*The upload was removed"):
        read(bomb)
    assert not bomb.exists() and uploads.kept(root) == [good] and time.monotonic() - began < 10


def test_a_person_s_own_file_is_never_removed(tmp_path):
    path = write(tmp_path / "mine.csv", gzip.compress(b"a,b\n"))
    with pytest.raises(DataError, match="compressed"):
        read(path)
    assert path.exists() and not uploads.discard(path)
