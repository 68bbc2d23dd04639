from __future__ import annotations

import subprocess
import sys

import pytest

from shrivenq.pipeline import state


@pytest.fixture(autouse=True)
def state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SHRIVENQ_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def test_the_folder_is_private(state_folder):
    assert state.make_folder("demo") == state_folder / "demo"
    assert (state_folder / "demo").stat().st_mode & 0o777 == 0o700


def test_a_second_holder_of_the_lock_is_refused():
    script = "from shrivenq.pipeline import state\nwith state.locked('demo', 'lock', wait=False): print('got it')"
    with (
        state.locked("demo", "lock", wait=False),
        pytest.raises(state.StateError, match="demo: is running already"),
        state.locked("demo", "lock", wait=False),
    ):
        pass
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "got it\n"


def test_armed_says_who_and_why():
    state.write_armed("demo", "  tested   on paper ")
    who, _, why = (state.armed("demo") or "").partition(": ")
    assert who
    assert why == "tested on paper"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"armed",
        b"armed demo",
        b"armed demo me",
        b"armed demo me  ",
        b"armed other me why",
        b"Armed demo me why",
        b"killed demo me halt why",
        b"\xff\xfe\x00rubbish",
        b"armed demo  why",
    ],
)
def test_anything_but_a_whole_armed_line_means_killed(content):
    (state.make_folder("demo") / "armed").write_bytes(content)
    assert state.armed("demo") is None


def test_no_file_and_an_unreadable_one_mean_killed():
    assert state.armed("demo") is None
    state.write_armed("demo", "why")
    path = state.folder("demo") / "armed"
    path.unlink()
    path.mkdir()
    assert state.armed("demo") is None


def test_a_live_run_begins_killed_and_another_as_its_last_ended():
    state.begin("demo", "live")
    assert not (state.make_folder("demo") / "armed").exists()
    state.begin("demo", "paper")
    assert state.armed("demo")
    state.begin("demo", "live")
    assert state.why_killed("demo").startswith("halt by ")
    state.write_killed("demo", "cancel", "by hand")
    for mode in ("live", "paper"):
        state.begin("demo", mode)
        assert state.why_killed("demo").endswith("by hand")


def test_killing_replaces_the_armed_line():
    state.write_armed("demo", "why")
    state.write_killed("demo", "cancel", "by hand")
    assert state.armed("demo") is None
    assert (state.folder("demo") / "armed").read_text().startswith("killed demo ")
    assert [path.name for path in state.folder("demo").iterdir()] == ["armed"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("SHRIVENQ_STATE", str(blocked))
    with pytest.raises(state.StateError, match="cannot make the state folder"):
        state.make_folder("demo")


@pytest.mark.parametrize("name", ["", "..", "a/b", "*", "Demo", "x" * 25])
def test_what_is_no_name_has_no_folder(name):
    with pytest.raises(state.StateError, match="no name of a pipeline"):
        state.folder(name)


def test_who_killed_how_far_and_why_is_read_back():
    state.write_killed("one", "cancel", "too many  deaths")
    assert state.why_killed("one").startswith("cancel by ")
    assert state.why_killed("one").endswith(": too many deaths")
    state.write_armed("one", "looked")
    assert state.why_killed("one") == state.why_killed("nobody") == state.why_killed("../x") == ""
