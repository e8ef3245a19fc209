"""Who gets in: users and passwords, passes, and the flags of app.py."""

import stat
import subprocess
import sys
import time

import pytest

from studio.access import LOCAL, SECRET_FILE, USERS_FILE, AccessError, Passes, Users, Visitor
from studio.errors import StudioError
from studio.jobs import PROJECT

PASSWORD = "a long password"


@pytest.fixture
def users(tmp_path) -> Users:
    users = Users(tmp_path)
    users.add("anna", PASSWORD, admin=True)
    users.add("bert", PASSWORD + "!")
    return users


def test_a_user_is_known_by_name_and_password(users):
    assert users.check("anna", PASSWORD) == Visitor("anna", admin=True)
    assert users.check("bert", PASSWORD + "!") == Visitor("bert")
    assert users.check("bert", PASSWORD) is None
    assert users.check("carl", PASSWORD) is None
    assert users.check("", "") is None


def test_passwords_are_hashed_in_a_file_that_only_its_owner_reads(users):
    text = users.path.read_text(encoding="utf-8")
    assert PASSWORD not in text and text.count("$argon2id$") == 2
    assert stat.S_IMODE(users.path.stat().st_mode) == 0o600


def test_the_same_password_has_two_hashes(tmp_path):
    users = Users(tmp_path)
    users.add("anna", PASSWORD)
    before = users.path.read_text(encoding="utf-8")
    users.add("anna", PASSWORD)
    assert users.path.read_text(encoding="utf-8") != before


@pytest.mark.parametrize("name", ["", "Anna", "../anna", "a/b", ".anna", "-rf", "a" * 33, "anna\n", "anna\0", "ännä", "a b", "users/x"])
def test_a_name_that_could_be_another_folder_is_refused(tmp_path, name):
    with pytest.raises(StudioError, match="cannot be a user's name"):
        Users(tmp_path).add(name, PASSWORD)
    assert not (tmp_path / USERS_FILE).exists()


def test_a_short_password_is_refused(tmp_path):
    with pytest.raises(StudioError, match="8 characters or more"):
        Users(tmp_path).add("anna", "1234567")


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"anna": {"surprise": 1}}', '{"anna": "x"}'])
def test_a_damaged_file_of_users_lets_nobody_in_and_says_so(users, damage):
    users.path.write_text(damage, encoding="utf-8")
    with pytest.raises(AccessError, match="Restore the file"):
        users.check("anna", PASSWORD)


def test_a_name_that_nobody_has_takes_as_long_as_a_wrong_password(users):
    def seconds(name: str) -> float:
        begun = time.perf_counter()
        for _ in range(5):
            users.check(name, "wrong password")
        return time.perf_counter() - begun

    seconds("anna")
    assert 0.4 < seconds("carl") / seconds("anna") < 2.5


def test_a_pass_is_its_visitor_s_until_the_password_changes_or_the_user_goes(users, tmp_path):
    passes = Passes(tmp_path, users, named=True)
    given = passes.issue(Visitor("bert"))
    assert passes.read(given) == Visitor("bert")
    assert Passes(tmp_path, users, named=True).read(given) == Visitor("bert"), "A restarted studio knows its visitors."
    users.add("bert", "another password")
    assert passes.read(given) is None
    renewed = passes.issue(Visitor("bert"))
    users.remove("bert")
    assert passes.read(renewed) is None


def test_a_pass_of_an_open_studio_is_worth_nothing_in_a_named_one_and_the_other_way_round(users, tmp_path):
    opened, named = Passes(tmp_path, users, named=False), Passes(tmp_path, users, named=True)
    assert opened.read(opened.issue(LOCAL)) == LOCAL
    assert named.read(opened.issue(LOCAL)) is None
    assert opened.read(named.issue(Visitor("anna"))) is None


@pytest.mark.parametrize("change", [lambda text: text[:-1], lambda text: "x" + text, lambda _: "", lambda _: "W10.x.y", lambda text: text.swapcase()])
@pytest.mark.fault("T47")
def test_a_forged_pass_is_nobody_s(users, tmp_path, change):
    passes = Passes(tmp_path, users, named=True)
    assert passes.read(change(passes.issue(Visitor("anna", admin=True)))) is None


def test_passes_of_another_studio_are_worth_nothing(users, tmp_path):
    (tmp_path / "other").mkdir()
    elsewhere = Users(tmp_path / "other")
    elsewhere.add("anna", PASSWORD)
    forged = Passes(tmp_path / "other", elsewhere, named=True).issue(Visitor("anna"))
    assert Passes(tmp_path, users, named=True).read(forged) is None
    assert stat.S_IMODE((tmp_path / SECRET_FILE).stat().st_mode) == 0o600


# --- the command line ---------------------------------------------------------------------------------------------------


def app(*arguments: str, typed: str = "") -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "app.py", *arguments], cwd=PROJECT, input=typed, capture_output=True, text=True, timeout=60)


def test_a_user_is_added_and_removed_from_the_command_line(tmp_path):
    added = app("--runs", str(tmp_path), "--add-user", "anna", "--admin", typed=PASSWORD + "\n")
    assert (added.returncode, added.stdout) == (0, "anna can sign in and is an administrator.\n"), added.stderr
    assert Users(tmp_path).check("anna", PASSWORD) == Visitor("anna", admin=True)
    assert app("--runs", str(tmp_path), "--remove-user", "anna").returncode == 0
    assert not Users(tmp_path)


def test_beyond_this_machine_the_studio_does_not_start_without_users(tmp_path):
    refused = app("--runs", str(tmp_path), "--host", "0.0.0.0", "--port", "1")
    assert refused.returncode != 0 and "--add-user" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.parametrize(("arguments", "told"), [(("--add-user", "../x"), "cannot be a user's name"), (("--remove-user", "carl"), "no user")])
def test_what_cannot_be_done_to_users_is_told(tmp_path, arguments, told):
    refused = app("--runs", str(tmp_path), *arguments, typed=PASSWORD)
    assert refused.returncode != 0 and told in refused.stderr and "Traceback" not in refused.stderr
