from __future__ import annotations

import fcntl
import os
import signal
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


CLAIM = """
import sys
from shrivenq.pipeline import state
with state.claimed("test-state"):
    print("got it", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def lock(tmp_path):
    """The lock of the machine, gone before and after."""
    path = state.SHARED / "shrivenq-test-state.lock"
    path.unlink(missing_ok=True)
    yield path
    path.unlink(missing_ok=True)


def claim(folder):
    """Claim the name in a process of its own, with another state folder, until it reads a line."""
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM], env=os.environ | {"SHRIVENQ_STATE": str(folder)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_name_is_one_run_s_whatever_the_state_folder(tmp_path, lock):
    with claim(tmp_path / "other") as other:
        assert other.stdout.readline() == "got it\n"
        assert lock.stat().st_mode & 0o777 == 0o600
        with pytest.raises(state.StateError) as caught, state.claimed("test-state"):
            pass
        assert str(caught.value) == (
            f"test-state: is running already on this machine (process {other.pid}, state folder "
            f"{tmp_path / 'other' / 'test-state'} holds {lock})"
        )
        assert lock.exists()
        other.communicate("")
    assert not lock.exists()
    with state.claimed("test-state"):
        assert lock.exists()


def test_who_was_killed_holds_nothing(tmp_path, lock):
    with claim(tmp_path / "other") as other:
        assert other.stdout.readline() == "got it\n"
        other.send_signal(signal.SIGKILL)
    assert lock.exists()
    with state.claimed("test-state"):
        assert str(os.getpid()) in lock.read_text()
    assert not lock.exists()


def test_a_child_that_outlives_its_parent_holds_the_name(tmp_path, lock):
    """The stages of a supervisor that was killed still use its segments."""
    forks = CLAIM.replace("    sys.stdin", "    import os\n    if os.fork():\n        os._exit(9)\n    sys.stdin")
    parent = subprocess.Popen([sys.executable, "-c", forks], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout.readline() == "got it\n"
    assert parent.wait() == 9
    with pytest.raises(state.StateError, match="is running already"), state.claimed("test-state"):
        pass
    parent.stdin.close()
    assert parent.stdout.read() == ""  # the child has ended
    parent.stdout.close()
    with state.claimed("test-state"):
        pass


def test_a_lock_that_went_while_it_was_being_taken_is_taken_anew(lock, monkeypatch):
    flock, taken = fcntl.flock, []

    def late(descriptor, how):
        if not taken:
            lock.unlink()
        taken.append(descriptor)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with state.claimed("test-state"):
        assert len(taken) == 2
        monkeypatch.undo()
        with pytest.raises(state.StateError, match="is running already"), state.claimed("test-state"):
            pass


def test_another_user_s_name_is_refused(lock, monkeypatch):
    lock.write_text("")
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(state.StateError) as caught, state.claimed("test-state"):
        pass
    assert str(caught.value) == (
        f"test-state: is a name of uid {owner} on this machine, expected {owner + 1} (by {lock}); choose another"
    )
    assert lock.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_another_user_cannot_even_open_it(lock):
    read, write = os.pipe()
    with state.claimed("test-state"):
        pid = os.fork()
        if pid == 0:
            os.setuid(65_534)
            try:
                state._claim("test-state", lock)
            except state.StateError as error:
                os.write(write, str(error).encode())
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        said = os.read(read, 4096).decode()
        assert lock.exists()
    assert said.startswith("test-state: is a name of uid 0 on this machine, expected 65534"), said
    for end in (read, write):
        os.close(end)


def test_what_is_no_file_of_ours_is_refused_in_one_line(lock, tmp_path):
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(state.StateError, match="cannot be locked"), state.claimed("test-state"):
        pass
    assert not (tmp_path / "elsewhere").exists()


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
