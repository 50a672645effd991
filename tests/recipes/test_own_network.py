"""A network of the user's in recipes and grids: killed, resumed, in workers, over two processes."""

import json
import re
from pathlib import Path

import pytest

from supermask import Network
from supermask.recipes._grid import ROWS, Grid, experiments
from supermask.recipes._settings import Mlp, Other
from tests.recipes.command import run
from tests.supermask.runs.own_networks import NETS, write_nets
from tests.supermask.runs.small_runs import left_by, same

NAMED = "--network.name", "mine/cnn", "--network.arguments", "dropout", 0.25
CPU = "--run.device", "cpu"
OFTEN = "--run.checkpoint-seconds", 0
HALF = "--method.remaining", 0.5


@pytest.fixture
def asked(tmp_path: Path) -> tuple[str, ...]:
    return "--import", write_nets(tmp_path)


def test_killed_it_goes_on_to_the_bit_and_with_another_file_not(asked: tuple[str, ...], tmp_path: Path) -> None:
    options = "ep", *HALF, *asked, *NAMED, *CPU, "--data.layout", "image", "--training.epochs", 2, *OFTEN
    for folder in ("whole", "stopped"):
        how = ["tests.recipes.stopped", "SIGKILL:step", 20] if folder == "stopped" else []
        done = run(*[*how, "recipes.digits"], *options, "--run.folder", folder, cwd=tmp_path)
        assert done.returncode == (-9 if how else 0), done.stderr
    text = NETS.replace("A convolution", "One convolution")
    for changed in (text, NETS):
        write_nets(tmp_path, text=changed)
        done = run("recipes.digits", *options, "--run.folder", "stopped", "--resume", cwd=tmp_path)
        if changed is text:
            assert done.returncode == 2
            assert "the code of builder in nets_of_mine was of SHA-256" in done.stderr
    assert done.returncode == 0, done.stderr
    assert "goes on after 19 of 62 steps" in done.stdout
    assert same(left_by(tmp_path / "stopped"), left_by(tmp_path / "whole"))


@pytest.mark.slow
def test_a_grid_has_it_in_its_workers_and_runs_it_anew_where_it_changed(asked: tuple[str, ...], tmp_path: Path) -> None:
    options = (*asked, *NAMED, "--seeds", 1, "--epochs", 1, "--remaining", 0.5, "--folder", "grid", "--device", "cpu")
    for count in (1, 1, 2):
        if count == 2:
            write_nets(tmp_path, text=NETS.replace("POOL = 2", "POOL = 4"))
        done = run("recipes.table1", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        configs = [json.loads(file.read_text())["recipe"] for file in tmp_path.glob("grid/*/config.json")]
        assert len(configs) == count
        assert {config["network"]["name"] for config in configs} == {"mine/cnn"}
        assert {config["data"]["layout"] for config in configs} == {"image"}
    done = run("recipes.table1", *options[2:], cwd=tmp_path)
    assert done.returncode == 2
    assert "no architecture is called 'mine/cnn'" in done.stderr


@pytest.mark.slow
def test_two_processes(asked: tuple[str, ...], tmp_path: Path) -> None:
    torchrun = "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "recipes.digits"
    options = "--data.layout", "image", "--training.epochs", 1, *CPU, "--run.folder", "run"
    done = run(*torchrun, "ep", *HALF, *asked, *NAMED, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]
    assert (config["processes"], config["network"]["name"]) == (2, "mine/cnn")
    done = run("supermask", "verify", *asked, "run/ticket.safetensors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_digits_take_another_network_by_name(tmp_path: Path) -> None:
    assert repr(Mlp()) == "Mlp(inputs=64, hidden=(256, 256))"
    assert Mlp(arguments={"norm": False})(10).arguments == {"sizes": [64, 256, 256, 10], "norm": False}
    other = Mlp(name="conv4", arguments={"size": 8, "channels": 1})
    assert other(10) == Network(name="conv4", arguments={"size": 8, "channels": 1})(10)
    assert "name='conv4'" in repr(other)
    for wrong, says in (
        ({"name": "conv4", "hidden": (3,)}, r"network\.hidden=\(3,\): it is of mlp, and the network is conv4"),
        ({"name": "conv4", "inputs": 3}, r"network\.inputs=3: it is of mlp"),
        ({"arguments": {"sizes": 3}}, r"network\.arguments sizes=3: give network\.inputs and network\.hidden"),
        ({"config": tmp_path}, r"it is of networks of transformers, and the network is mlp"),
    ):
        with pytest.raises(ValueError, match=says):
            Mlp(**wrong)  # type: ignore[arg-type]


def test_a_configuration_is_read_when_the_architecture_is_made(tmp_path: Path) -> None:
    file = tmp_path / "vit.json"
    network = Network(name="transformers/AutoModelForImageClassification", config=str(file))  # type: ignore[arg-type]
    assert repr(Network(name="resnet18")) == "Network(name='resnet18', arguments={})"
    for text, says in ((None, "No such file"), ("[", "Expecting value"), ("[]", "an object of JSON")):
        if text is not None:
            file.write_text(text)
        with pytest.raises(ValueError, match=f"config={re.escape(str(file))}: .*{says}|config=.*{says}"):
            network(3)
    file.write_text('{"model_type": "vit"}')
    assert network(3).arguments == {"config": {"model_type": "vit"}, "num_classes": 3}


def test_lists_come_from_a_command_line_as_json() -> None:
    given = {"widths": "[8, 16]", "extra": '{"a": 1}', "text": "[8", "plain": "x", "rate": 0.5, "list": [1]}
    found = Network(name="mine/cnn", arguments=given)(3).arguments
    assert found == {**given, "widths": [8, 16], "extra": {"a": 1}, "num_classes": 3}


def folder(**options: object) -> Path:
    grid = Grid(**options)  # type: ignore[arg-type]
    return experiments(grid.setting(), [ROWS["EP"]])[0].job(grid, 0).folder


def test_folders_of_grids_tell_networks_apart(tmp_path: Path) -> None:
    file = tmp_path / "vit.json"
    of_file = Other(name="transformers/AutoModelForImageClassification", config=file)
    found = [folder(), folder(network=Other(name="conv4", arguments={"size": 8}))]
    for text in ('{"model_type": "vit"}', '{"model_type": "vit", "num_hidden_layers": 2}'):
        file.write_text(text)
        found.append(folder(data="digits32", network=of_file))
    assert len(set(found)) == 4
    file.write_text('{"num_hidden_layers":2,  "model_type":"vit"}')
    assert folder(data="digits32", network=of_file) == found[-1]
    layouts = [Grid(network=other).setting().data.layout for other in (Other(), Other(name="conv4"))]  # type: ignore[attr-defined]
    assert layouts == ["flat", "image"]


def test_arguments_of_no_network_are_refused() -> None:
    with pytest.raises(ValueError, match=r"network.arguments=.*of which network\? Give --network.name"):
        Other(arguments={"width": 2})
    with pytest.raises(ValueError, match=r"network.config=x: of which network"):
        Other(config=Path("x"))


def test_table_2_keeps_its_networks(tmp_path: Path) -> None:
    done = run("recipes.table2", "--network.name", "conv4", "--dry-run", cwd=tmp_path)
    assert done.returncode == 2
    assert "network.name=conv4: table2 compares two networks of its own" in done.stderr
