#!/usr/bin/env python3
"""How our kernels' cost grows, what a second thread brings, and what memory they take: writes a table.

    scale.py MEASURE SHOP MODEL WORK [--kernels aggregate,factorize,retrieve,encode] [--rank 128] [--sweeps 4]

MEASURE is the example of that name, SHOP a folder with `items.parquet` and `events/` in days; WORK takes what goes
between, and `scale.md`. Each kernel runs at a quarter, a half and all of its input on two threads, and at all of it on
one. Peak memory is the whole process's, over the sum of what it reads and what it writes, as they lie in memory.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from compare import REGULARIZATION, TOP_K, UNOBSERVED, pairs

SHARES = (4, 2, 1)


# A small process of its own: a child's highest memory begins at that of the process which starts it.
LAUNCHER = """
import json, os, subprocess, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(os.environ["RAYON_NUM_THREADS"])])
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
printed = child.stdout.read()
_, status, used = os.wait4(child.pid, 0)
seconds = json.loads(printed.strip().splitlines()[-1])["seconds"] if status == 0 else None
print(json.dumps([status, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


def run(command, threads):
    """Its own seconds, CPU seconds and highest memory in MiB, on as many cores as threads."""
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    command = [str(part) for part in command]
    printed = subprocess.run([sys.executable, "-c", LAUNCHER, *command], env=environment, stdout=subprocess.PIPE, check=True)
    status, *figures = json.loads(printed.stdout)
    if status != 0:
        sys.exit(f"{' '.join(command)}: status {status}")
    return figures


def some_days(shop, share, work):
    """A shop with the first of the days alone."""
    folder = work / f"shop-{share}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "events").mkdir(parents=True)
    (folder / "items.parquet").symlink_to((shop / "items.parquet").resolve())
    days = sorted((shop / "events").iterdir())
    for day in days[: len(days) // share]:
        (folder / "events" / day.name).symlink_to(day.resolve())
    events = ds.dataset([str(path) for path in folder.glob("events/*/*.parquet")], format="parquet")
    return folder, events.count_rows(), events.to_table().nbytes


def first(values, count, path):
    values[:count].tofile(path)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure")
    parser.add_argument("shop", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--kernels", default="aggregate,factorize,retrieve,encode")
    parser.add_argument("--texts", type=int, default=2_000)
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--sweeps", type=int, default=4)
    given = parser.parse_args()
    work = given.work
    work.mkdir(parents=True, exist_ok=True)
    kernels = given.kernels.split(",")
    table = ["| kernel | size | threads | seconds | CPU seconds | CPU seconds a million | peak MiB | of input and output |", "|---|---|---|---|---|---|---|---|"]

    def rows(kernel, unit, prepare):
        """`prepare(share)` says the command, how many units it is, and the bytes of its input and output."""
        for share in SHARES:
            command, units, held = prepare(share)
            for threads in (2, 1) if share == 1 else (2,):
                seconds, cpu, peak = run(command, threads)
                of = f"{peak / (held / 2**20):.2f}" if held else ""
                line = f"| {kernel} | {units:,} {unit} | {threads} | {seconds:.2f} | {cpu:.2f} | {cpu * 1e6 / units:.3f} | {peak:.0f} | {of} |"
                print(line, file=sys.stderr)
                table.append(line)

    if "aggregate" in kernels:
        def prepare(share):
            shop, events, held = some_days(given.shop, share, work)
            return [given.measure, "aggregate", shop, work / "behavior", 1024], events, held

        rows("aggregate", "events", prepare)

    if "factorize" in kernels or "retrieve" in kernels:
        files = [np.fromfile(path, kind) for path, kind in zip(pairs(given.shop, work), ("u4", "u4", "f4"))]
        n_users, n_items = (int(ids.max()) + 1 for ids in files[:2])
        to = [work / "users.f32", work / "items.f32"]

        def factorize(share):
            # All pairs of the first users, so that rows stay as long as they are.
            users = n_users // share
            count = int(np.searchsorted(files[0], users))
            some = [first(values, count, work / f"some-{at}") for at, values in enumerate(files)]
            fit = [given.rank, given.sweeps, UNOBSERVED, REGULARIZATION]
            held = 12 * count + 4 * given.rank * (users + n_items)
            return [given.measure, "factorize", *some, *fit, *to], count, held

        def retrieve(share):
            queries = np.fromfile(to[0], np.float32)
            users = n_users // share
            some = first(queries, users * given.rank, work / "queries.f32")
            held = 4 * given.rank * (users + n_items) + 8 * TOP_K * users
            return [given.measure, "retrieve", some, to[1], given.rank, TOP_K, work / "ours.u32"], users, held

        rows("factorize", "pairs", factorize)
        if "retrieve" in kernels:
            rows("retrieve", f"users x {n_items:,} items", retrieve)

    if "encode" in kernels:
        items = pq.read_table(given.shop / "items.parquet").slice(0, given.texts).to_pydict()
        texts = [f"{title}. {more}" for title, more in zip(items["title"], items.get("description") or items["title"])]
        weights = (given.model / "model.safetensors").stat().st_size

        for precision in ("f32", "bf16"):
            def encode(share):
                # Every so many, or the texts of a part would be shorter or longer ones.
                path = work / "texts.txt"
                path.write_text("\n".join(texts[::share]), "utf-8")
                some = len(texts[::share])
                held = weights + path.stat().st_size + 4 * 384 * some
                return [given.measure, "encode", path, given.model, precision, work / "encoded.f32"], some, held

            rows(f"encode, {precision}", "texts", encode)

    text = "\n".join(table) + "\n"
    (work / "scale.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
