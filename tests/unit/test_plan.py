import pytest
import yaml

from cluster.plan import Bundle, Node, bundles, explain, fit_bundles, local_node, table
from cluster.spec import ClusterSpec, load_spec, shipped_specs
from framework.errors import UserError
from jobs.layouts import load_layout


def shares_of_gpu(*gpus):
    return [Bundle(f"b{i}", "reward", i, cpus=0, gpus=share) for i, share in enumerate(gpus)]


def test_shipped_layouts_load_and_bear_their_own_names():
    assert shipped_specs() == ["four_gpu", "laptop", "one_gpu"]
    for name in shipped_specs():
        assert load_spec(name).name == name


@pytest.mark.parametrize(("name", "node"), [("laptop", (1, 0)), ("one_gpu", (1, 1)), ("four_gpu", (4, 4))], ids=str)
def test_each_shipped_layout_exactly_fills_its_machine(name, node):
    plan = explain(bundles(load_spec(name)), [Node("n", *node)])
    assert plan.problem is None
    cpus, gpus = node
    assert explain(bundles(load_spec(name)), [Node("n", cpus / 2, gpus)]).problem


def test_bundles_are_named_by_role_and_by_rank_only_where_there_are_replicas():
    spec = ClusterSpec(name="x", roles={"teacher": {}, "judge": {"replicas": 2, "threads": 3}})
    assert [b.name for b in bundles(spec)] == ["teacher", "judge-0", "judge-1"]
    assert [(b.role, b.rank, b.threads) for b in bundles(spec)][1:] == [("judge", 0, 3), ("judge", 1, 3)]


def test_a_layout_of_a_run_has_every_role_in_order_with_defaults_where_it_is_silent(tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text("roles: {gold: {cpus: 2}, reward: {replicas: 2}}")
    layout = bundles(load_layout(path))
    assert [bundle.name for bundle in layout] == ["policy", "reference", "reward-0", "reward-1", "gold"]
    assert [bundle.cpus for bundle in layout] == [1, 1, 1, 1, 2]


def test_the_workers_of_a_fit_are_a_layout_of_their_own():
    spec = ClusterSpec(name="x", fit={"replicas": 2, "cpus": 3, "threads": 3})
    assert fit_bundles(spec) == [Bundle(f"fit-{rank}", "fit", rank, 3, 0, 3) for rank in (0, 1)]
    assert "fit" not in {bundle.role for bundle in bundles(spec)}
    assert [bundle.name for bundle in fit_bundles(ClusterSpec(name="x"))] == ["fit"]


@pytest.mark.parametrize("name", ["laptop", "one_gpu", "four_gpu"])
def test_the_fit_of_each_shipped_layout_fits_its_own_machine(name):
    spec = load_spec(name)
    largest = Node("n", sum(b.cpus for b in bundles(spec)), sum(b.gpus for b in bundles(spec)))
    assert not explain(fit_bundles(spec), [largest]).problem


def test_unknown_name_lists_the_layouts_nearest_first():
    with pytest.raises(UserError, match="one_gpu, four_gpu, laptop"):
        load_spec("onegpu")


def test_a_file_is_a_layout_too(tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text(yaml.safe_dump({"roles": {"gold": {"replicas": 3}}, "strategy": "SPREAD"}))
    spec = load_spec(path)
    assert (spec.name, spec.roles["gold"].replicas, spec.strategy) == ("lab", 3, "SPREAD")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("roles: {polcy: {cpus: 1}}", "unknown key 'roles.polcy'; did you mean 'policy'"),
        ("roles: {judge: {cpus: 1}}", "unknown key 'roles.judge'; the roles are policy, reference, reward, gold"),
        ("roles: {policy: {replicas: 2}}", "roles.policy: replicas=2 is more than it can have: set it to 1"),
        ("roles: {gold: {divide: members}}", "roles.gold: divide=members is for reward, which has members"),
        ("roles: {gold: {gpus: 1.5}}", "roles.gold.gpus: a share above one GPU must be a whole number"),
        ("roles: {gold: {cpus: 0}}", "roles.gold: cpus and gpus are both 0"),
        ("roles: {reward: {divide: heads}}", "roles.reward.divide='heads': input should be 'rows' or 'members'"),
        ("roles: {reward: {divid: rows}}", "unknown key 'roles.reward.divid'; did you mean 'divide'"),
        ("fit: {replicas: 0}", "fit.replicas=0: input should be greater than or equal to 1"),
        ("roles: {gold: {cpus: many}}", "roles.gold.cpus='many': input should be a valid number"),
        ("- 1", "must hold a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_bad_file_is_one_line_that_names_the_key(tmp_path, text, said):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_layout(path)
    assert said in str(caught.value) and "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_role_larger_than_any_node_is_named_with_both_numbers():
    plan = explain(bundles(load_spec("four_gpu")), [Node("a", 2, 0), Node("b", 8, 0)])
    assert plan.problem == "policy asks for 1 CPU and 1 GPU; the largest node (b) has 8 CPUs and 0 GPUs"
    assert plan.homes == ()


def test_a_layout_larger_than_the_whole_cluster_gives_both_sums():
    plan = explain(bundles(load_spec("four_gpu")), [Node("a", 8, 2)])
    assert "4 workers ask for 4 CPUs and 4 GPUs in all" in plan.problem
    assert "a has 8 CPUs and 2 GPUs" in plan.problem


def test_shares_that_do_not_divide_over_devices_are_found_out():
    # 1.8 of 2 GPUs, yet no device holds two of 0.6
    plan = explain(shares_of_gpu(0.6, 0.6, 0.6), [Node("a", 1, 2)])
    assert "do not divide" in plan.problem


def test_tenths_of_a_gpu_add_up_to_one():
    assert not explain(shares_of_gpu(*[0.1] * 10), [Node("a", 1, 1)]).problem
    assert explain(shares_of_gpu(*[0.1] * 11), [Node("a", 1, 1)]).problem


def test_the_search_finds_what_greedy_filling_misses():
    # Tightest-first puts 0.5 beside 0.4 and strands a 0.3; 0.5+0.3+0.2 and 0.4+0.3+0.3 fill both devices.
    plan = explain(shares_of_gpu(0.5, 0.4, 0.3, 0.3, 0.3, 0.2), [Node("a", 1, 2)])
    assert plan.problem is None


def test_whole_devices_are_not_made_of_fractions():
    assert not explain(shares_of_gpu(2, 0.5), [Node("a", 1, 3)]).problem
    assert explain(shares_of_gpu(2, 0.5, 0.6), [Node("a", 1, 3)]).problem


def test_spread_uses_many_nodes_and_pack_few():
    nodes = [Node(name, 4, 0) for name in "abcd"]
    layout = bundles(load_spec("laptop"))
    assert len(set(explain(layout, nodes, "SPREAD").homes)) == 4
    assert set(explain(layout, nodes, "PACK").homes) == {"a"}


def test_a_search_that_would_not_end_leaves_the_decision_to_ray():
    # 40 shares of over a third of a device: two to a device make 20, more than the 16 there are
    layout = shares_of_gpu(*[0.34 + i / 1000 for i in range(40)])
    plan = explain(layout, [Node("a", 1, 16)])
    assert not plan.problem and set(plan.homes) == {"decided by Ray"}


def test_no_nodes_is_a_problem_and_not_a_crash():
    assert explain(bundles(load_spec("laptop")), []).problem == "the cluster has no live node"


def test_the_table_shows_every_worker_its_home_and_the_problem():
    fits = table(explain(bundles(load_spec("one_gpu")), [Node("box", 2, 1)]))
    assert "policy" in fits and "box, GPU 0" in fits and "nodes: box has 2 CPUs and 1 GPU" in fits
    assert "does not fit: policy asks" in table(explain(bundles(load_spec("one_gpu")), [Node("box", 2, 0)]))


def test_this_machine_offers_what_the_layout_says_it_should():
    spec = ClusterSpec(name="x", local={"num_cpus": 8, "num_gpus": 4})
    assert local_node(spec) == Node("this machine", 8, 4)
    assert local_node(ClusterSpec(name="x")).cpus >= 1
