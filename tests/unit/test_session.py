"""What Ray reads when it is imported: tokens are kept on, and none is left in the user's home."""

import os

import pytest

from cluster.session import _prepare_environment

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", LOOPBACK):
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


def test_a_session_of_this_machine_listens_on_loopback_and_one_that_attaches_decides_nothing(home):
    _prepare_environment("auto")
    assert LOOPBACK not in os.environ
    _prepare_environment("local")
    assert os.environ[LOOPBACK] == "0"
