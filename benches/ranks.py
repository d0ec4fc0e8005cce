#!/usr/bin/env python3
"""Trains runs with one process and with several, and prints the tables of docs/SCALING.md.

    cargo build --release --features polaron-train/mpi
    python3 benches/ranks.py                      # all tables; needs an idle machine, a few minutes
    python3 benches/ranks.py --only equal         # digests of weights and states, however a run was made
    python3 benches/ranks.py --only time          # step and update by number of ranks and network
    python3 benches/ranks.py --only model         # what the cost model predicts for clusters of GPUs

Needs Open MPI and Python 3 without packages. As root on Linux it also runs two ranks in two network namespaces, which only a virtual
cable connects: to MPI two machines.
"""
import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time

AGENT = """#!/bin/sh
shift
exec ip netns exec polaron-b unshare --uts sh -c "hostname node-b; $*"
"""
ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
COMMON = ["--set", "train.sample_tokens=0", "--set", "train.valid_windows=16", "--set", "train.valid_windows_end=16"]
# 12 grains: 1, 2, 3 and 4 ranks share them; two and four ranks send more than one sum each.
EQUAL = ["--model", "llama-d64", "--steps", "40", "--set", "train.batch=12", "--set", "train.grains=12",
         "--set", "train.valid_every=20", "--set", "train.checkpoint_every=10", "--set", "train.keep=9", *COMMON]
# 512 wide, 4 layers, 1.1 million parameters, batch 256.
TIME = ["--model", "mlp", "--set", "model.width=512", "--set", "model.depth=5", "--set", "train.batch=256", "--steps", "60",
        "--set", "train.valid_every=0", "--set", "train.checkpoint_every=0", "--threads", "1"]
TCP = ["--mca", "btl", "tcp,self"]


class Runs:
    """Runs of the program in a folder of their own."""

    def __init__(self, polaron, folder):
        self.polaron, self.folder, self.number = os.path.abspath(polaron), folder, 0

    def out(self):
        self.number += 1
        return os.path.join(self.folder, f"run-{self.number}")

    def command(self, ranks, arguments, network=()):
        train = [self.polaron, "train", *arguments]
        if ranks == 1:
            return train
        return ["mpirun", "--quiet", "-np", str(ranks), "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle",
                "1", *network, *train]

    def start(self, ranks, arguments, network=()):
        return subprocess.Popen(self.command(ranks, arguments, network), env={**os.environ, **ROOT}, stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def run(self, ranks, arguments, out, network=()):
        child = self.start(ranks, [*arguments, "--out", out], network)
        said = child.communicate()[1]
        if child.returncode != 0:
            raise SystemExit(said)
        return out

    def between(self, arguments, out):
        """Two ranks, each in a network namespace of its own."""
        agent = os.path.join(self.folder, "agent")
        with open(agent, "w") as file:
            file.write(AGENT)
        os.chmod(agent, 0o700)
        with namespaces():
            network = "10.77.0.0/24"
            mpirun = ["mpirun", "--quiet", "-np", "2", "-H", "10.77.0.1:1,10.77.0.2:1", "--mca", "plm_rsh_agent", agent, *TCP,
                      "--mca", "btl_tcp_if_include", network, "--mca", "oob_tcp_if_include", network, "--bind-to", "none",
                      "--wdir", os.getcwd(), self.polaron, "train", *arguments, "--out", out]
            inside = "hostname node-a; exec \"$@\""
            done = subprocess.run(["ip", "netns", "exec", "polaron-a", "unshare", "--uts", "sh", "-c", inside, "sh", *mpirun],
                                  env={**os.environ, **ROOT}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        return out


@contextlib.contextmanager
def namespaces():
    ip = lambda text: subprocess.run(["ip", *text.split()], check=True)
    try:
        for name in "ab":
            ip(f"netns add polaron-{name}")
        ip("link add polaron-va type veth peer name polaron-vb")
        for number, name in enumerate("ab", 1):
            ip(f"link set polaron-v{name} netns polaron-{name}")
            ip(f"-n polaron-{name} addr add 10.77.0.{number}/24 dev polaron-v{name}")
            ip(f"-n polaron-{name} link set lo up")
            ip(f"-n polaron-{name} link set polaron-v{name} up")
        yield
    finally:
        for name in "ab":
            subprocess.run(["ip", "netns", "del", f"polaron-{name}"], stderr=subprocess.DEVNULL)


def has_namespaces():
    return os.name == "posix" and os.geteuid() == 0 and shutil.which("ip") is not None


def digest(out, step):
    sums = []
    for name in ("model", "optimizer"):
        with open(os.path.join(out, "checkpoints", f"step-{step:06}", f"{name}.safetensors"), "rb") as file:
            sums.append(hashlib.sha256(file.read()).hexdigest()[:16])
    return sums


def resumed(runs, before, after):
    """Made by `before` ranks to step 20, and by `after` ranks from there."""
    out = runs.run(before, [*EQUAL, "--threads", "1"], runs.out())
    for step in (30, 40):
        shutil.rmtree(os.path.join(out, "checkpoints", f"step-{step:06}"))
    return runs.run(after, [*EQUAL, "--threads", "1"], out)


def killed(runs, rank):
    """One of two ranks is killed when the run is half done; three ranks resume it."""
    out = runs.out()
    arguments = [*EQUAL, "--threads", "1", "--out", out]
    child = runs.start(2, arguments)
    metrics = os.path.join(out, "metrics.jsonl")
    while child.poll() is None and not (os.path.exists(metrics) and '"step":15,' in open(metrics).read()):
        time.sleep(0.001)
    with open(f"/proc/{child.pid}/task/{child.pid}/children") as file:
        for pid in map(int, file.read().split()):
            with open(f"/proc/{pid}/environ", "rb") as environ:
                if f"OMPI_COMM_WORLD_RANK={rank}\0".encode() in environ.read():
                    os.kill(pid, signal.SIGKILL)
    child.communicate()
    if child.returncode == 0:
        raise SystemExit("the run had ended before it was killed")
    return runs.run(3, [*EQUAL, "--threads", "1"], out)


def equal(runs):
    alone = [*EQUAL, "--threads", "1"]
    ways = [(f"1 process, {threads} thread{'s' * (threads > 1)}",
             lambda threads=threads: runs.run(1, [*EQUAL, "--threads", str(threads)], runs.out())) for threads in (1, 2)]
    ways += [(f"{ranks} ranks", lambda ranks=ranks: runs.run(ranks, alone, runs.out())) for ranks in (2, 3, 4)]
    ways += [("2 ranks over TCP", lambda: runs.run(2, alone, runs.out(), TCP))]
    if has_namespaces():
        ways += [("2 ranks in two network namespaces", lambda: runs.between(alone, runs.out()))]
    ways += [(f"to step 20 by {a} rank{'s' * (a > 1)}, then by {b}", lambda a=a, b=b: resumed(runs, a, b))
             for a, b in ((2, 1), (1, 4), (4, 3))]
    ways += [(f"rank {rank} of 2 killed after step 15, then 3 ranks", lambda rank=rank: killed(runs, rank)) for rank in (0, 1)]
    print("| run | weights | states |\n|---|---|---|")
    found = []
    for name, way in ways:
        found.append(digest(way(), 40))
        print(f"| {name} | `{found[-1][0]}` | `{found[-1][1]}` |", flush=True)
    if any(sums != found[0] for sums in found):
        raise SystemExit("these runs differ")


def times(out):
    """Milliseconds of a step and of its clip and update: the medians but for the first steps."""
    with open(os.path.join(out, "metrics.jsonl")) as file:
        events = [event for event in map(json.loads, file) if event["event"] == "train"]
    median = lambda key: 1e3 * statistics.median(b[key] - a[key] for a, b in zip(events[9:], events[10:]))
    return median("seconds"), median("optimizer_seconds")


def states(out):
    """Bytes of the states of every rank, by its plan."""
    with open(os.path.join(out, "plan.txt")) as file:
        lines = file.read().split("numbers in states")
    if len(lines) < 2:
        return []
    rows = [line.split("  ") for line in lines[1].splitlines() if " %" in line]
    return [4 * int(row[-1].replace(",", "")) for row in rows]


def rate_of_tcp():
    """Bytes a second through a socket of this machine."""
    listener = socket.create_server(("127.0.0.1", 0))
    size, block = 1 << 28, bytes(1 << 20)

    def send():
        with socket.create_connection(listener.getsockname()) as out:
            for _ in range(size // len(block)):
                out.sendall(block)

    threading.Thread(target=send).start()
    connection, start, got = listener.accept()[0], time.perf_counter(), 0
    buffer = bytearray(1 << 20)
    while got < size:
        got += connection.recv_into(buffer)
    return size / (time.perf_counter() - start)


def rate_of_copies():
    """Bytes a second of a copy from memory to memory, of which a message between processes needs two."""
    source, target = bytearray(1 << 28), bytearray(1 << 28)
    start = time.perf_counter()
    target[:] = source
    return len(source) / (time.perf_counter() - start) / 2


def predicted(step, update, ranks, rate, parameters):
    """The cost model: processors share rows and updates, and twice (R - 1) / R of the numbers go each way."""
    moved, shares = 2 * (ranks - 1) / ranks * 4 * parameters, min(ranks, os.cpu_count() or 1)
    return step / shares + 1e3 * moved / rate, update / shares + 1e3 * moved / 2 / rate


def timing(runs):
    grains = lambda count: [*TIME, "--set", f"train.grains={count}"]
    ways = [("1 process", lambda: runs.run(1, grains(1), runs.out()), 1, None)]
    memory, tcp = rate_of_copies(), rate_of_tcp()
    ways += [(f"{ranks} ranks, shared memory", lambda ranks=ranks: runs.run(ranks, grains(ranks), runs.out()), ranks, memory)
             for ranks in (2, 4)]
    ways += [(f"{ranks} ranks, TCP", lambda ranks=ranks: runs.run(ranks, grains(ranks), runs.out(), TCP), ranks, tcp)
             for ranks in (2, 4)]
    if has_namespaces():
        ways += [("2 ranks, two network namespaces", lambda: runs.between(grains(2), runs.out()), 2, tcp)]
    found = {name: [] for name, *_ in ways}
    for _ in range(3):
        for name, way, *_ in ways:
            out = way()
            found[name].append((*times(out), states(out)))
    one = [statistics.median(value[at] for value in found["1 process"]) for at in (0, 1)]
    with open(os.path.join(runs.folder, "run-1", "plan.txt")) as file:
        parameters = int(next(line for line in file if line.startswith("covered")).split("; ")[1].split()[0].replace(",", ""))
    print(f"\n{parameters:,} parameters; processors: {os.cpu_count()}; a copy between processes {memory / 1e9:.1f} GB/s, a socket "
          f"{tcp / 1e9:.1f} GB/s\n")
    print("| | step, ms | of one | predicted | clip and update, ms | of one | predicted | states of a rank, MB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, _, ranks, rate in ways:
        step, update = (statistics.median(value[at] for value in found[name]) for at in (0, 1))
        model = predicted(*one, ranks, rate, parameters) if rate else one
        held = found[name][0][2]
        held = " to ".join(f"{1e-6 * value:.2f}" for value in sorted({min(held), max(held)})) if held else ""
        print(f"| {name} | {step:.1f} | {step / one[0]:.2f} | {model[0]:.1f} | {update:.1f} | {update / one[1]:.2f} | "
              f"{model[1]:.1f} | {held} |")


# name, layers, width, [width of the feed-forward part, its matrices], vocabulary, tokens of a batch
SIZES = [
    ("124M", 12, 768, (3072, 2), 50304, 2**19),
    ("350M", 24, 1024, (4096, 2), 50304, 2**19),
    ("1.3B", 24, 2048, (8192, 2), 50304, 2**20),
    ("7B", 32, 4096, (11008, 3), 32000, 2**22),
]
# Assumed of one GPU: operations a second of a training step and of an update (40 % of an H100's dense bfloat16 and TF32 rates), bytes a
# second between its memory and the host's (PCIe 5), and to other machines (400 Gbit/s for each GPU, 90 % of it).
COMPUTE, UPDATE, HOST, NETWORK = 0.4 * 989e12, 0.4 * 494e12, 50e9, 0.9 * 50e9


def matrices(layers, width, feed_forward):
    inner, count = feed_forward
    return [(width, width)] * 4 * layers + [(width, inner)] * count * layers


def largest_share(costs, ranks):
    """Operations of the rank with the most work: the largest first onto the least loaded one."""
    loads = [0.0] * ranks
    for cost in sorted(costs, reverse=True):
        loads[loads.index(min(loads))] += cost
    return max(loads)


def model():
    print("\n| parameters | GPUs | forward and backward, ms | update, ms | host, ms | network, ms | step, ms | of perfect | memory of a GPU, "
          "GB |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, layers, width, feed_forward, vocabulary, tokens in SIZES:
        shapes = matrices(layers, width, feed_forward)
        tables = [vocabulary * width] * 2
        count = sum(a * b for a, b in shapes) + sum(tables)
        polar = [5 * (4 * min(a, b) ** 2 * max(a, b) + 2 * min(a, b) ** 3) for a, b in shapes]
        costs = polar + [12 * size for size in tables]
        states = 4 * (sum(a * b for a, b in shapes) + 2 * sum(tables))
        alone = None
        for ranks in (1, 8, 32, 128, 512):
            compute, update = 6 * count * tokens / ranks / COMPUTE, largest_share(costs, ranks) / UPDATE
            share = (ranks - 1) / ranks
            # All gradients out, the own ones in; the own weights out, all others in.
            host = share * 2 * (4 * count + 4 * count / ranks) / HOST
            network = 2 * share * 4 * count / NETWORK
            step = compute + update + host + network
            alone = alone or step
            memory = (2 * 4 * count + states / ranks) / 1e9
            cells = [compute, update, host, network, step]
            print(f"| {name} | {ranks} | " + " | ".join(f"{1e3 * value:.0f}" for value in cells)
                  + f" | {100 * alone / ranks / step:.0f} % | {memory:.1f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--polaron", default="target/release/polaron")
    parser.add_argument("--only", choices=["equal", "time", "model"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(args.polaron, folder)
        if args.only in (None, "equal"):
            equal(runs)
        if args.only in (None, "time"):
            timing(Runs(args.polaron, tempfile.mkdtemp(dir=folder)))
    if args.only in (None, "model"):
        model()


if __name__ == "__main__":
    main()
