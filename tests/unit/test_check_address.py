"""`check` against a cluster: the nodes of the address decide, and a fit that could not be placed is refused as `train` would."""

from contextlib import contextmanager

import pytest

from cluster.plan import Node
from jobs import __main__ as cli
from jobs.verbs import check


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of one node with what a test gives it, and the addresses that were asked for."""
    asked, nodes = [], []

    @contextmanager
    def connect(address, spec, namespace):
        asked.append(address)
        yield

    monkeypatch.setattr(check, "connect", connect)
    monkeypatch.setattr(check, "live_nodes", lambda: nodes)
    return asked, nodes


def test_the_nodes_of_the_address_decide(cluster, capsys):
    asked, nodes = cluster
    nodes.append(Node("head", 8, 4))
    assert cli.main(["check", "cluster=four_gpu", "--address", "auto"]) == 0
    assert asked == ["auto"]
    assert "head has 8 CPUs and 4 GPUs" in capsys.readouterr().out


def test_nothing_is_connected_to_without_an_address(cluster):
    asked, _ = cluster
    assert cli.main(["check"]) == 0
    assert asked == []


def test_a_fit_that_does_not_fit_is_refused(cluster, tmp_path, capsys):
    _, nodes = cluster
    nodes.append(Node("head", 2, 0))
    layout = tmp_path / "many.yaml"
    share = "{cpus: 0.25}"
    roles = "".join(f"  {role}: {share}\n" for role in ("policy", "reference", "reward", "gold"))
    layout.write_text(f"roles:\n{roles}fit: {{replicas: 4, cpus: 1}}\n")
    assert cli.main(["check", f"cluster={layout}", "--address", "auto"]) == 2
    assert "a fit does not fit: 4 workers ask for 4 CPUs" in capsys.readouterr().out
