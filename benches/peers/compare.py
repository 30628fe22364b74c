#!/usr/bin/env python3
"""Our kernels beside other programs', in turn, on one shop: writes a table of ratios.

    compare.py MEASURE SHOP MODEL WORK [--kernels aggregate,factorize,retrieve,encode] [--rounds 3] [--users 20000]
               [--texts 2000] [--rank 128] [--sweeps 8]

MEASURE is the example of that name, SHOP a folder with `items.parquet` and `events/`, MODEL a text encoder's
folder; WORK takes what goes between, and `table.md`. Each round runs ours and then every peer, so that other
load on the machine meets all alike; a ratio is the median over rounds of a peer's seconds by ours. Of factorisations
a peer does as many sweeps as bring it to our objective, 16 at most. Needs what `requirements.txt` names.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

WEIGHTS = {"view": 1.0, "click": 2.0, "cart": 4.0, "purchase": 8.0}
UNOBSERVED, REGULARIZATION, TOP_K, MOST_SWEEPS = 0.1, 0.01, 100, 16


def run(command, threads=2):
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads), "THREADS": str(threads)}
    done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def pairs(shop, work):
    """The shop's behaviour as weighted pairs of dense indices; returns the three files."""
    files = [work / name for name in ("rows.u32", "cols.u32", "weights.f32")]
    if not all(path.exists() for path in files):
        events = ds.dataset(shop / "events", partitioning="hive")
        table = events.to_table(["user_id", "item_id", "event_type"], filter=pc.field("item_id").is_valid())
        types = pa.array(list(WEIGHTS)), np.array(list(WEIGHTS.values()), np.float32)
        known = pc.index_in(table["event_type"].cast(pa.string()), types[0]).combine_chunks()
        keep = pc.is_valid(known)
        table, known = table.filter(keep), known.filter(keep).to_numpy()
        index = {name: table[name].combine_chunks().dictionary_encode().indices for name in ("user_id", "item_id")}
        table = pa.table({**index, "weight": types[1][known]})
        sums = table.group_by(["user_id", "item_id"]).aggregate([("weight", "sum")])
        sums = sums.sort_by([("user_id", "ascending"), ("item_id", "ascending")])
        for path, name, kind in zip(files, ("user_id", "item_id", "weight_sum"), (np.uint32, np.uint32, np.float32)):
            sums[name].to_numpy().astype(kind).tofile(path)
    return files


def rounds(ours, peers, n):
    """Seconds of each, round by round, and what each answered last."""
    seconds, answers = {}, {}
    for _ in range(n):
        for name, command in [*ours.items(), *peers.items()]:
            answers[name] = run(command)
            seconds.setdefault(name, []).append(answers[name]["seconds"])
            print(f"{name}: {seconds[name][-1]:.3f} s", file=sys.stderr)
    return seconds, answers


def lines(kernel, size, seconds, first, notes):
    for name, taken in seconds.items():
        ratio = statistics.median(theirs / ours for theirs, ours in zip(taken, seconds[first]))
        yield f"| {kernel} | {size} | {name} | {statistics.median(taken):.2f} | {ratio:.2f} | {notes.get(name, '')} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure")
    parser.add_argument("shop", type=pathlib.Path)
    parser.add_argument("model")
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--kernels", default="aggregate,factorize,retrieve,encode")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--texts", type=int, default=2_000)
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--sweeps", type=int, default=8)
    given = parser.parse_args()
    work, peer = given.work, [sys.executable, pathlib.Path(__file__).with_name("peers.py")]
    work.mkdir(parents=True, exist_ok=True)
    table = ["| kernel | size | program | seconds | by ours | |", "|---|---|---|---|---|---|"]
    kernels = given.kernels.split(",")

    if "aggregate" in kernels:
        ours = {"ours": [given.measure, "aggregate", given.shop, work / "behavior", 2048]}
        libs = {"DuckDB": "duckdb", "DuckDB, cleaning as ours": "duckdb-clean", "Polars": "polars"}
        peers = {name: [*peer, "aggregate", lib, given.shop, work / f"{lib}.parquet"] for name, lib in libs.items()}
        seconds, answers = rounds(ours, peers, given.rounds)
        whole = answers["ours"]
        notes = {name: f"{answers[name]['pairs']:,} pairs" for name in libs}
        notes["ours"] = f"{whole['stage_seconds']:.2f} s with searches, baskets, transitions"
        rows = sum(piece.count_rows() for piece in ds.dataset(given.shop / "events").get_fragments())
        table += lines("aggregate", f"{rows:,} events", seconds, "ours", notes)

    if "factorize" in kernels or "retrieve" in kernels:
        files = pairs(given.shop, work)
        fit = [given.rank, given.sweeps, UNOBSERVED, REGULARIZATION]
        ours = {"ours": [given.measure, "factorize", *files, *fit, work / "users.f32", work / "items.f32"]}
        libs = ["implicit-cg", "irspack-cg", "irspack-ialspp"] if "factorize" in kernels else []
        command = lambda lib, sweeps: [*peer, "factorize", lib, *files, given.rank, sweeps, *fit[2:]]
        # As many sweeps as a peer takes to the objective that ours has after its own.
        sweeps, goal = {}, run(ours["ours"])["objective"]
        for lib in libs:
            sweeps[lib] = next(
                (n for n in range(1, MOST_SWEEPS) if run(command(lib, n))["objective"] <= goal), MOST_SWEEPS
            )
        peers = {lib: command(lib, n) for lib, n in sweeps.items()}
        seconds, answers = rounds(ours, peers, given.rounds if libs else 1)
        if libs:
            sweeps["ours"] = given.sweeps
            notes = {name: f"objective {of['objective']:.6g} after {sweeps[name]} sweeps" for name, of in answers.items()}
            size = f"{files[0].stat().st_size // 4:,} pairs, rank {given.rank}"
            table += lines("factorize", size, seconds, "ours", notes)

    if "retrieve" in kernels:
        queries = work / "queries.f32"
        some = np.fromfile(work / "users.f32", np.float32, given.users * given.rank)
        some.tofile(queries)
        n_items = (work / "items.f32").stat().st_size // (4 * given.rank)
        matrices = [queries, work / "items.f32", given.rank, TOP_K]
        ours = {"ours": [given.measure, "retrieve", *matrices, work / "ours.u32"]}
        peers = {"faiss IndexFlatIP": [*peer, "retrieve", "faiss", *matrices, work / "faiss.u32"]}
        seconds, _ = rounds(ours, peers, given.rounds)
        lists = [np.fromfile(work / name, np.uint32).reshape(-1, TOP_K) for name in ("ours.u32", "faiss.u32")]
        same = np.mean([len(np.intersect1d(a, b)) / TOP_K for a, b in zip(*lists)])
        size = f"{len(some) // given.rank:,} x {n_items:,} x {given.rank}, K = {TOP_K}"
        table += lines("retrieve", size, seconds, "ours", {"faiss IndexFlatIP": f"{same:.3%} of ours in its lists"})

    if "encode" in kernels:
        items = pq.read_table(given.shop / "items.parquet").slice(0, given.texts).to_pydict()
        described = items.get("description") or [""] * len(items["title"])
        texts = work / "texts.txt"
        texts.write_text("\n".join(f"{title}. {more}" for title, more in zip(items["title"], described)), "utf-8")
        ours = {
            f"ours, {precision}": [given.measure, "encode", texts, given.model, precision, work / f"{precision}.f32"]
            for precision in ("f32", "bf16")
        }
        libs = {"ONNX Runtime f32": "onnx", "sentence-transformers f32": "torch", "sentence-transformers bf16": "torch-bf16"}
        peers = {name: [*peer, "encode", lib, texts, given.model, work / f"{lib}.f32"] for name, lib in libs.items()}
        seconds, _ = rounds(ours, peers, given.rounds)
        read = lambda name: np.fromfile(work / f"{name}.f32", np.float32).reshape(len(items["title"]), -1).astype(np.float64)
        exact, notes = read("torch"), {}
        for name, file in [("ours, f32", "f32"), ("ours, bf16", "bf16"), *libs.items()]:
            notes[name] = f"least cosine to f32 {np.min((exact * read(file)).sum(1)):.7f}"
        size = f"{len(items['title']):,} texts"
        table += lines("encode, f32", size, seconds, "ours, f32", notes)
        table += list(lines("encode, bf16", size, seconds, "ours, bf16", notes))[1:]

    text = "\n".join(table) + "\n"
    (work / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
