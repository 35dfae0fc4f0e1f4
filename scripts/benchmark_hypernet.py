"""Time and memory of forward + backward: every head, ordinary networks, one weight set per sample, hypnettorch.

Each measurement runs in a process of its own, so that peak memory is its own too.
"""

import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call, vmap

from hyperrl.hypernet import HEADS, HyperNetwork, mlp

OBSERVATION, CONTEXT, ACTION = 8, 4, 2
PLAIN, CONCAT, PER_SAMPLE = "plain MLP", "concat MLP, parameters of low_rank", "one weight set per sample, vmap"
HYPNETTORCH = "hypnettorch 0.0.4, looping over the batch"


@dataclass
class Arguments:
    batch: int = 4096
    contexts: tuple[int, ...] = (1, 16, 256, 4096)
    widths: tuple[int, ...] = (64, 256)
    methods: tuple[str, ...] = (PLAIN, CONCAT, *HEADS, PER_SAMPLE, HYPNETTORCH)
    device: str = "cpu"
    threads: int = 1
    limit_gb: float = 4.0
    """Skip what needs more memory."""
    limit_s: float = 20.0
    """Skip what takes longer, warm-up included."""
    markdown: bool = False
    """Print tables as Markdown."""


def make_target(width: int) -> nn.Sequential:
    return mlp([OBSERVATION, width, width, ACTION], nn.Tanh)


def size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def make(method: str, width: int) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    """Return a network and how to apply it to contexts and observations."""
    if method == PLAIN:
        plain = make_target(width)
        return plain, lambda c, x: plain(x)
    if method == CONCAT:
        matched = size(HyperNetwork(CONTEXT, make_target(width)))
        wide = next(w for w in range(width, 4096) if size(concat_mlp(w)) >= matched)
        concat = concat_mlp(wide)
        return concat, lambda c, x: concat(torch.cat([x, c], dim=1))
    if method == HYPNETTORCH:
        return make_hypnettorch(width)
    hyper = HyperNetwork(CONTEXT, make_target(width), head="full" if method == PER_SAMPLE else method)
    if method != PER_SAMPLE:
        return hyper, hyper

    def per_sample(c: Tensor, x: Tensor) -> Tensor:
        weights = hyper.head.weights(hyper.encoder(c))  # {name: (B, *shape)}
        return vmap(lambda w, row: functional_call(hyper.head.base, w, (row,)))(weights, x)

    return hyper, per_sample


def make_hypnettorch(width: int) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    from hypnettorch.hnets import HMLP  # pyright: ignore[reportMissingImports]
    from hypnettorch.mnets import MLP  # pyright: ignore[reportMissingImports]

    kwargs = dict(activation_fn=nn.Tanh(), verbose=False)
    target = MLP(n_in=OBSERVATION, n_out=ACTION, hidden_layers=(width, width), no_weights=True, **kwargs)
    sizes = dict(uncond_in_size=CONTEXT, cond_in_size=0, num_cond_embs=0, layers=(64, 64))
    hyper = HMLP(target.param_shapes, no_cond_weights=True, **sizes, **kwargs)

    def loop(c: Tensor, x: Tensor) -> Tensor:
        sets = hyper.forward(uncond_input=c)  # a list of B lists of weights
        sets = sets if len(c) > 1 else [sets]
        return torch.cat([target.forward(row, weights=w) for row, w in zip(x.split(1), sets, strict=True)])

    return hyper, loop


def install_hypnettorch(folder: str) -> str | None:
    """Install it for this process alone; say why not where that fails."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, "hypnettorch==0.0.4"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    sys.path.append(folder)
    # In another process: this one must not compute, since measurements are forked from it.
    test = "from hypnettorch.hnets import HMLP; from hypnettorch.mnets import MLP"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({folder!r}); {test}"], capture_output=True, text=True
    )
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


def concat_mlp(width: int) -> nn.Sequential:
    return mlp([OBSERVATION + CONTEXT, width, width, ACTION], nn.Tanh)


def measure(method: str, width: int, contexts: int, a: Arguments, connection: Connection) -> None:
    """Send the best time in seconds, the peak memory in bytes, and the number of parameters."""
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    network, apply = make(method, width)
    network.to(a.device)
    unique = torch.rand(contexts, CONTEXT, device=a.device) * 2 - 1
    context = unique[torch.randperm(a.batch, device=a.device) % contexts]
    x = torch.randn(a.batch, OBSERVATION, device=a.device)

    def run(rows: int) -> None:
        network.zero_grad()
        apply(context[:rows], x[:rows]).square().mean().backward()
        if a.device != "cpu":
            torch.cuda.synchronize()

    run(2)  # libraries load at the first call
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    run(a.batch)
    if a.device == "cpu":
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    else:
        peak = torch.cuda.max_memory_allocated()
    times = []
    while len(times) < 3 or (time.perf_counter() - start < 2 and len(times) < 200):
        begin = time.perf_counter()
        run(a.batch)
        times.append(time.perf_counter() - begin)
    connection.send((min(times), peak, size(network)))


def limited(method: str, width: int, contexts: int, a: Arguments) -> tuple[float, float, int] | str:
    """Measure in a process of its own; say why not where it takes too much."""
    # Forked from a process that has not computed anything, so it shares no memory that a measurement freed.
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        if a.device == "cpu":
            with open("/proc/self/statm") as file:
                limit = int(file.read().split()[0]) * resource.getpagesize() + int(a.limit_gb * 1e9)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            measure(method, width, contexts, a, sender)  # pyright: ignore[reportArgumentType]
        except (RuntimeError, MemoryError) as error:
            if "memory" not in str(error):
                raise
            sender.send(f"> {a.limit_gb:g} GB")

    process = context.Process(target=child)
    process.start()
    result = receiver.recv() if receiver.poll(a.limit_s) else f"> {a.limit_s:g} s"
    process.kill()
    process.join()
    return result


def main(a: Arguments) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if HYPNETTORCH in a.methods and (reason := install_hypnettorch(folder)):
            Console(stderr=True).print(f"skipped {HYPNETTORCH}: {reason}")
            a.methods = tuple(method for method in a.methods if method != HYPNETTORCH)
        compare(a)


def compare(a: Arguments) -> None:
    console, progress = Console(width=160), Console(stderr=True)
    for width in a.widths:
        rows = []
        for method in a.methods:
            progress.print(f"[dim]{width}-{width}: {method}")
            rows.append((method, [limited(method, width, contexts, a) for contexts in a.contexts]))
        reference = dict(rows).get(CONCAT)
        header = ["", "parameters", *(f"K = {contexts:,}" for contexts in a.contexts)]
        title = f"Target {width}-{width}, B = {a.batch:,}: ms (times concat), MB"
        lines = []
        for method, results in rows:
            cells = []
            for i, result in enumerate(results):
                if isinstance(result, str):
                    cells.append(f"skipped: {result}")
                    continue
                beside = None if reference is None else reference[i]
                ratio = "" if beside is None or isinstance(beside, str) else f" ({result[0] / beside[0]:.2f}×)"
                cells.append(f"{result[0] * 1e3:.1f}{ratio}, {result[1] / 1e6:.0f}")
            parameters = next((f"{result[2]:,}" for result in results if not isinstance(result, str)), "")
            lines.append([method, parameters, *cells])
        if a.markdown:
            from hyperrl.report.markdown import markdown_table

            print(f"{title}\n\n{markdown_table(header, lines)}\n")
        else:
            table = Table(*header, title=title)
            for line in lines:
                table.add_row(*line)
            console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
