"""A judge over HTTP: what it is asked and paid, what a bad line or a bad reply does, and what is kept."""

import json
import os
import re
import sqlite3
import threading

import pytest

from framework.config import parse_config
from framework.errors import RunError, UserError
from framework.gold import Judge
from framework.gold import judge as asking
from jobs import __main__ as cli
from jobs.chain import Chain
from jobs.run_folder import RunContext, make_run
from tests.judge_server import said, serving
from tests.tiny import TINY, contents, merged

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def _quickly(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(asking, "FIRST_WAIT_SECONDS", 0.01)


def words(_, body):
    """A judge that says how many words the response has: its text stands last in the default template."""
    return said(str(len(body["messages"][0]["content"].partition("Response:\n")[2].split())))


def judge(server, **settings):
    return Judge(url=server.url, model="m", **settings).build("cpu")


def values(scorer, responses, prompt="p"):
    return scorer.score([prompt] * len(responses), responses).values.tolist()


def test_each_text_is_paid_what_the_judge_says_of_it_and_asked_about_once():
    with serving(words) as server:
        scorer = judge(server)
        responses = ["a b c", "", "d", "a b c"]
        assert values(scorer, responses) == [3.0, 0.0, 1.0, 3.0]
        assert sorted(server.contents) == sorted(
            asking.Judge.model_fields["template"].default.replace("{prompt}", "p").replace("{response}", r)
            for r in ("a b c", "", "d")
        )
        (body,) = [body for body in server.bodies if body["messages"][0]["content"].endswith("Response:\nd")]
        assert {name: body[name] for name in ("model", "temperature", "max_tokens")} == {
            "model": "m", "temperature": 0.0, "max_tokens": 16,
        }  # fmt: skip
        assert set(server.paths) == {"/v1/chat/completions"}
        assert all("Authorization" not in headers for headers in server.headers)
        assert values(scorer, []) == []


def test_a_restart_asks_about_nothing_again_and_every_setting_that_matters_asks_anew():
    with serving(words) as server:
        assert values(judge(server), ["a", "b c"]) == [1.0, 2.0]
        assert values(judge(server, concurrency=1, retries=0, timeout_seconds=3, most_calls=2), ["b c", "a"]) == [
            2.0,
            1.0,
        ]
        assert len(server.bodies) == 2
        # Parsing is done with the kept reply: nothing is paid for again.
        assert values(judge(server, pattern="[0-9]"), ["a"]) == [1.0]
        assert len(server.bodies) == 2
        changes = [
            {"template": "Response:\n{response}"}, {"temperature": 0.5}, {"max_tokens": 17},
        ]  # fmt: skip
        for count, change in enumerate(changes, start=3):
            assert values(judge(server, **change), ["a"]) == [1.0]
            assert len(server.bodies) == count
        Judge(url=server.url, model="other").build("cpu").score(["p"], ["a"])
        Judge(url=server.url + "/", model="m").build("cpu").score(["p"], ["a"])
        judge(server, cache="elsewhere/replies.sqlite").score(["p"], ["a"])
        assert len(server.bodies) == len(changes) + 5


def test_braces_stay_and_a_text_that_looks_like_a_slot_is_not_filled():
    with serving(lambda _, body: said("1")) as server:
        scorer = judge(server, template='{"p": "{prompt}", "r": "{response}", "{x}": {}}')
        scorer.score(["say {response} \\1"], ["no {prompt}"])
        assert server.contents == ['{"p": "say {response} \\1", "r": "no {prompt}", "{x}": {}}']
        scorer.score(["ü \ud800"], ["\u2028"])  # a lone surrogate, and a separator of lines
        assert server.contents[1] == '{"p": "ü \ud800", "r": "\u2028", "{x}": {}}'


@pytest.mark.parametrize(
    ("reply", "pattern", "score"),
    [
        ("7", None, 7.0),
        (" 7.5\n", None, 7.5),
        ("10", None, 10.0),
        ("-0", None, 0.0),
        ("7/10", None, None),
        ("Score: 7", None, None),
        ("11", None, None),
        ("-1", None, None),
        ("As GPT-4 I cannot", None, None),
        ("", None, None),
        ("nan", None, None),
        ("Score: 7", r"Score: (\d+)", 7.0),
        ("from 1 to 10, I say 8", r"\d+", None),
        ("8. So 8.0", r"\d+\.?\d*", 8.0),
        ("Score: 3\nScore: 4", r"Score: (\d+)", None),
        ("nan", "nan", None),
        ("none", r"none|(\d+)", None),
        (None, None, None),
        ([{"type": "text", "text": "7"}], None, None),
    ],
)
def test_a_reply_is_one_number_in_range_or_it_is_not_read(reply, pattern, score):
    with serving(lambda *_: said(reply)) as server:
        settings = {} if pattern is None else {"pattern": pattern}
        if score is None:
            with pytest.raises(
                RunError, match=rf"^judge m at {server.url}: 1 of 1 replies hold no one number"
            ) as caught:
                values(judge(server, **settings), ["a"])
            assert "\n" not in str(caught.value)
        else:
            assert values(judge(server, **settings), ["a"]) == [score]


def test_a_reply_that_was_cut_is_not_read():
    with (
        serving(lambda *_: said("1", finish="length")) as server,
        pytest.raises(RunError, match=r"such as \{'content': '1', 'finish_reason': 'length'\}"),
    ):
        values(judge(server), ["a"])


def test_one_reply_that_cannot_be_read_stops_the_run_and_the_others_are_kept():
    with serving(lambda _, body: said("no" if "bad" in body["messages"][0]["content"] else "5")) as server:
        scorer, good = judge(server), [f"good {i}" for i in range(9)]
        with pytest.raises(RunError, match=r"1 of 10 replies hold no one number .*'content': 'no'"):
            values(scorer, ["bad", *good])
        assert values(scorer, good) == [5.0] * 9
        assert len(server.bodies) == 10


@pytest.mark.parametrize(
    "failure",
    [
        (429, {"error": "slow down"}), (500, "oops"), (503, ""), (408, ""), (200, "<html>"), (200, {"choices": []}),
        (200, []), (200, {"error": {"message": "overloaded"}}), (0, None),
    ],
)  # fmt: skip
def test_what_may_pass_is_asked_again(failure):
    with serving(lambda number, body: failure if number < 2 else said("4")) as server:
        assert values(judge(server), ["a"]) == [4.0]
        assert len(server.bodies) == 3


def test_what_does_not_pass_ends_the_run_in_one_line_and_what_was_answered_is_kept():
    def answer(_, body):
        return (500, f"broken\nby {KEY}") if body["messages"][0]["content"].endswith("bad") else said("4")

    with serving(answer) as server:
        scorer = judge(server, retries=2, concurrency=1)
        with pytest.raises(RunError) as caught:
            values(scorer, ["a", "bad", "b"])
        assert str(caught.value) == f"judge m at {server.url}: no reply after 3 tries: HTTP 500: broken by {KEY}"
        asked = len(server.bodies)
        assert values(scorer, ["a"]) == [4.0]
        assert len(server.bodies) == asked


def test_a_server_that_is_not_there_or_does_not_answer_in_time():
    with serving(words) as server:
        url = server.url
    with pytest.raises(RunError, match=r"no reply after 2 tries: .*refused"):
        values(Judge(url=url, model="m", retries=1).build("cpu"), ["a"])
    with serving(words) as server:
        server.delay = 0.5
        with pytest.raises(RunError, match=r"no reply after 2 tries: .*timed out"):
            values(judge(server, retries=1, timeout_seconds=0.1), ["a"])


@pytest.mark.parametrize("status", [400, 401, 404, 302])
def test_what_asking_again_cannot_mend_is_the_users(status):
    with (
        serving(lambda *_: (status, "http://127.0.0.1:9/elsewhere")) as server,
        pytest.raises(UserError, match=rf"^judge m at {server.url} refuses: HTTP {status}: http"),
    ):
        values(judge(server), ["a"])
    assert len(server.bodies) == 1


def test_as_many_requests_as_allowed_are_under_way():
    with serving(words) as server:
        server.delay = 0.05
        values(judge(server, concurrency=5), [f"{'w ' * n}" for n in range(10)])
        assert 2 <= server.most_under_way <= 5


def test_the_limit_of_calls_stops_before_it_is_exceeded_and_raising_it_goes_on():
    with serving(words) as server:
        assert values(judge(server, most_calls=3), ["a", "b"]) == [1.0, 1.0]
        scorer = judge(server, most_calls=3)
        with pytest.raises(RunError, match=r"2 more calls would make 4, over most_calls=3.*raise most_calls"):
            values(scorer, ["a", "c", "d"])
        assert len(server.bodies) == 2
        assert values(scorer, ["a", "c"]) == [1.0, 1.0]
        assert values(judge(server, most_calls=4), ["c", "d"]) == [1.0, 1.0]
        assert len(server.bodies) == 4
        Judge(url=server.url, model="other", most_calls=1).build("cpu").score(["p"], ["a"])  # a judge of its own


def test_a_request_that_failed_does_not_count():
    with serving(lambda number, body: (500, "") if number < 2 else said("1")) as server:
        scorer = judge(server, most_calls=1, retries=1)
        with pytest.raises(RunError, match="no reply"):
            values(scorer, ["a"])
        assert values(scorer, ["b"]) == [1.0]


def test_two_that_share_a_file_at_once_lose_nothing_and_keep_the_limit():
    with serving(words) as server:
        found, stopped = [], []

        def work(first):
            scorer = judge(server, most_calls=40)
            try:
                for start in range(first, first + 30, 3):
                    found.extend(values(scorer, [f"w{n}" for n in range(start, start + 3)]))
            except RunError:
                stopped.append(first)

        threads = [threading.Thread(target=work, args=(first,)) for first in (0, 0, 100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with sqlite3.connect("runs/judge.sqlite") as db:
            kept = db.execute("SELECT COUNT(*), COUNT(reply) FROM replies").fetchone()
        db.close()
        assert stopped
        assert set(found) == {1.0}
        assert kept[0] == kept[1] <= 40
        assert len(set(server.contents)) == kept[0]


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    (tmp_path / "notes").write_text("not a database, but long enough to be read as one by mistake" * 20)
    for place in ("notes", ".", "notes/below"):
        with pytest.raises(UserError, match="set cache"):
            Judge(url="http://localhost:9/v1", model="m", cache=place).build("cpu")


def test_the_key_is_sent_and_stands_in_no_file_and_no_message(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    reward = {"kind": "judge", "model": "m", "api_key_variable": "MY_KEY", "retries": 0, "cache": "judge.sqlite"}
    changes = {
        "aggregation": {"kind": "mean"}, "reference_texts": 5, "train": {"steps": 2, "exact_kl_every": 0},
        "label": {"pairs": 2}, "max_new_tokens": 6,
    }  # fmt: skip
    with serving(words) as server:
        tree = merged(TINY, changes | {"reward": reward | {"url": server.url}, "gold": reward | {"url": server.url}})
        cfg = parse_config(tree)
        inputs = Chain(cfg, tmp_path).inputs
        assert make_run(inputs, tmp_path / "run", RunContext()).ended
        assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
        server.answer = lambda *_: (401, f"Incorrect API key provided: {KEY}")
        with pytest.raises(UserError, match=r"HTTP 401: Incorrect API key provided: \*\*\*") as caught:
            cfg.reward.build("cpu").score(["new"], ["text"])
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"metrics.jsonl", "config.yaml", "reward.json", "judge.sqlite"} <= {path.name for path in written}
    assert not [path for path in written if KEY.encode() in path.read_bytes()]
    assert KEY not in str(caught.value) + str(cfg) + "".join(capsys.readouterr())


def test_a_key_that_is_not_there_is_missed_before_anything_is_fitted(monkeypatch, capsys):
    words = ["gold.kind=judge", "gold.url=http://localhost:9/v1", "gold.model=m", "gold.api_key_variable=NO_SUCH_KEY"]
    for value in (None, "", "two words"):
        monkeypatch.delenv("NO_SUCH_KEY", raising=False)
        if value is not None:
            monkeypatch.setenv("NO_SUCH_KEY", value)
        for verb in ("check", "train"):
            assert cli.main([verb, *words]) == 2
            assert "the environment variable NO_SUCH_KEY holds no key on " in capsys.readouterr().err
    assert not os.path.exists("runs")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"url": "localhost:8000"}, "gold.url='localhost:8000'"),
        ({"url": "file:///etc/passwd"}, "gold.url="),
        ({"url": f"http://me:{KEY}@host/v1"}, "gold.url="),
        ({"url": "http://host/v1?key=1"}, "gold.url="),
        ({"template": "only {prompt}"}, r"template must contain \{response\}"),
        ({"pattern": "(["}, "pattern is no regular expression"),
        ({"lowest": 10}, "lowest=10 must be below highest=10"),
        ({"most_calls": 0}, "gold.most_calls=0"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(changes, says):
    tree = {"kind": "judge", "url": "http://localhost:9/v1", "model": "m"} | changes
    with pytest.raises(UserError, match=says):
        parse_config({"gold": tree})


def test_how_it_is_asked_changes_no_fingerprint_and_what_is_asked_does():
    tree = {"kind": "judge", "url": "http://localhost:9/v1", "model": "m"}
    before = parse_config({"gold": tree}).run_fingerprint()
    beside = {
        "concurrency": 1, "retries": 1, "timeout_seconds": 1, "cache": "x", "most_calls": 5, "api_key_variable": "K",
    }  # fmt: skip
    assert parse_config({"gold": tree | beside}).run_fingerprint() == before
    changes = [{"pattern": r"\d"}, {"template": "{response}"}, {"model": "n"}, {"highest": 5}]
    assert len({parse_config({"gold": tree | change}).run_fingerprint() for change in changes} | {before}) == 5


def test_a_run_that_spent_its_calls_goes_on_with_more_and_ends_as_if_never_stopped(tmp_path):
    changes = {"aggregation": {"kind": "mean"}, "reference_texts": 5, "label": {"pairs": 2}, "max_new_tokens": 6}
    with serving(words) as server:

        def config(**limit):
            reward = {"kind": "judge", "url": server.url, "model": "m", "cache": "judge.sqlite"} | limit
            return parse_config(merged(TINY, changes | {"reward": reward}))

        workspace = tmp_path
        limited = Chain(config(most_calls=45), workspace).inputs
        with pytest.raises(RunError, match=r"over most_calls=45;.*go on with") as caught:
            make_run(limited, tmp_path / "run", RunContext())
        assert len(server.bodies) <= 45
        step = int(re.search(r"step_(\d+)", str(caught.value))[1])
        assert 0 < step < 6
        more = make_run(Chain(config(most_calls=500), workspace).inputs, tmp_path / "run", RunContext())
        assert more.ended == "all steps"
        asked = len(server.bodies)
        assert asked == len({json.dumps(body) for body in server.bodies})
        whole = make_run(Chain(config(), workspace).inputs, tmp_path / "whole", RunContext())
        assert len(server.bodies) == asked
        assert contents(whole.run) == contents(more.run)
