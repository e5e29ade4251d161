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

from hdetr_d2.engine.network import choose_interface, interface_to
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
