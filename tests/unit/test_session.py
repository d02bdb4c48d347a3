"""What Ray reads when it is imported: tokens are kept on, and none is left in the user's home."""

import os

import pytest

from cluster.session import _prepare_environment, assert_can_start, connect
from framework.errors import UserError
from jobs import __main__ as cli
from jobs.layouts import load_layout


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        # Set first, so that what the code sets is undone as well.
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_local_session_has_a_token_of_its_own(home):
    _prepare_environment("local")
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert not (home / ".ray").exists()


def test_a_token_file_is_used_and_not_replaced(home):
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("0" * 64)
    _prepare_environment("local")
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_attaching_without_a_token_asks_for_none(home):
    _prepare_environment("auto")
    assert "RAY_AUTH_MODE" not in os.environ


def test_the_users_choice_stays(home, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    _prepare_environment("local")
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_sockets_have_names_that_are_short_enough_or_nothing_is_begun(tmp_path, monkeypatch, capsys):
    """Ray's own answer is an OSError, minutes later."""
    folder = tmp_path / ("a" * 90)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.setenv(name, str(folder))
        for verb in ("train", "study", "sweep", "fit-policy", "fit-reward", "label", "best-of-n", "check"):
            assert cli.main([verb, *([] if verb == "check" else ["--out", str(tmp_path / "out")])]) == 2
            assert f"{name}={folder} is " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert_can_start("127.0.0.1:6379")  # sockets are another machine's business
    assert cli.main(["check", "backend=inline"]) == 0
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert_can_start(None)


@pytest.mark.parametrize(
    "error", [Exception("The current node timed out during startup."), OSError("AF_UNIX"), TimeoutError("x")]
)
def test_ray_that_does_not_start_is_one_line_and_a_cure(monkeypatch, home, error):
    import ray

    def init(**_):
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    words = r"Ray does not start on this machine: .+ or set backend=inline"
    with pytest.raises(UserError, match=words), connect("local", load_layout("laptop"), "here"):
        pass
