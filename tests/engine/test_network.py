"""Two machines, as network namespaces that only a cable joins; each has its own name, which leads nowhere."""

import ctypes
import multiprocessing
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hdetr_d2.engine import ConfigError
from hdetr_d2.engine.network import choose_interface, interface_to, require_address, whole_number
from tests.engine.toy import CONFIG, ROOT, losses, run_in_process

ADDRESSES = ("10.231.77.1", "10.231.77.2")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def machines() -> Iterator[list[str]]:
    """Names of two namespaces."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2's ip")
    tag = uuid.uuid4().hex[:6]
    names = [f"hdetr_{tag}_{index}" for index in range(2)]
    cable = [f"hd{tag}{index}" for index in range(2)]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        for name, end, address in zip(names, cable, ADDRESSES, strict=True):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", end, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


NUM_MACHINES = ["--num-machines", "2", "--dist-url", f"tcp://{ADDRESSES[0]}:29517", "--machine-rank"]
TORCHRUN = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--master-addr", ADDRESSES[0]]


def command(launcher: str, rank: int, options: list[str]) -> list[str]:
    program = [str(ROOT / "train_net.py"), "--config-file", CONFIG, *options]
    if launcher == "torchrun":
        return [sys.executable, *TORCHRUN, "--master-port", "29518", "--node-rank", str(rank), *program]
    return [sys.executable, *program, *NUM_MACHINES, str(rank)]


@pytest.mark.parametrize("launcher", ["num-machines", "torchrun"])
def test_two_machines_train_what_one_does(machines: list[str], data: list[str], tmp_path: Path, launcher: str) -> None:
    options = [*data, "model.dropout=0", "schedule.epochs=1", "schedule.drop_epochs=[]"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GLOO_")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    two = [*options, f"train.output_dir={tmp_path / 'two'}"]
    in_network = ["unshare", "--uts", "sh", "-c", 'hostname machine; exec "$@"', "sh"]
    programs = [
        subprocess.Popen(
            ["ip", "netns", "exec", name, *in_network, *command(launcher, rank, two)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, name in enumerate(machines)
    ]
    try:
        outputs = [program.communicate(timeout=240)[0] for program in programs]
    finally:
        for program in programs:
            program.kill()
    assert [program.returncode for program in programs] == [0, 0], outputs
    run_in_process(*options, "train.accumulate=2", f"train.output_dir={tmp_path / 'one'}")
    one, both = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert sorted(one) == sorted(both)
    for iteration, expected in one.items():
        assert both[iteration] == pytest.approx(expected, rel=1e-4)


def _interface_in(name: str, answer: Any) -> None:
    """In a process of its own, whose network is then that of the namespace."""
    with open(f"/run/netns/{name}") as namespace:
        assert ctypes.CDLL(None).setns(namespace.fileno(), 0) == 0
    answer.put(interface_to(ADDRESSES[1]))


def test_the_interface_is_the_one_on_the_route_to_the_other_machine(machines: list[str]) -> None:
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    for name in machines:
        process = context.Process(target=_interface_in, args=(name, answer))
        process.start()
        assert answer.get(timeout=60) == f"hd{name.split('_')[1]}{name[-1]}"
        process.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "no.such.host.invalid", ""])
def test_where_no_route_leads_out_nothing_is_chosen(host: str) -> None:
    assert interface_to(host) == ""


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "mine")
    assert choose_interface("tcp://10.0.0.1:1", num_machines=2) == ""
    assert os.environ["GLOO_SOCKET_IFNAME"] == "mine"


@pytest.mark.parametrize("text", ["abc", "-1", "1.5", " ", "1e3"])
def test_a_launcher_s_variable_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", text)
    with pytest.raises(ConfigError, match=r"SLURM_RESTART_COUNT is .*unset it"):
        whole_number("SLURM_RESTART_COUNT")


def test_a_launcher_s_variable_that_is_empty_or_missing_is_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "")
    assert whole_number("LOCAL_WORLD_SIZE", 4) == 4
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert whole_number("LOCAL_WORLD_SIZE", 4) == 4
    with pytest.raises(ConfigError, match="LOCAL_WORLD_SIZE is ''"):
        whole_number("LOCAL_WORLD_SIZE", None)


@pytest.mark.parametrize("address", ["tcp://", "tcp://h", "tcp://:5", "tcp://h:99999", "tcp://h:0", "tcp://h:abc"])
def test_an_address_without_a_host_or_a_port_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="--dist-url"):
        require_address(address)


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.1:29500", "tcp://[::1]:29500", "tcp://node-1:1", "env://", "file:///x"]
)
def test_an_address_with_both_is_taken(address: str) -> None:
    require_address(address)
