#!/usr/bin/env python3
"""A night's job as one would put it together from other programs, in one process: DuckDB or Polars aggregates,
ONNX Runtime or sentence-transformers encodes, implicit or irspack factorises, faiss ranks, pyarrow writes.

    chain.py SHOP MODEL OUT [--aggregate duckdb|polars] [--encode onnx|torch|torch-bf16|none]
             [--factorize implicit-cg|irspack-cg] [--rank 128] [--sweeps 10] [--k 100] [--threads 2]

Writes `recommendations.parquet`, `similar_items.parquet` and `item_embeddings.parquet` below OUT. Lists are of the
sum of standardised scores of factors and content, where texts are encoded, as one inner product of concatenated
vectors; what a user has is not left out. Prints one JSON line: seconds of each step and of all, and the process's
highest memory. Libraries are loaded, and the model is exported to ONNX, before the clock starts.
"""
import argparse
import json
import os
import pathlib
import resource
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("shop", type=pathlib.Path)
parser.add_argument("model")
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("--aggregate", choices=["duckdb", "polars"], default="duckdb")
parser.add_argument("--encode", choices=["onnx", "torch", "torch-bf16", "none"], default="onnx")
parser.add_argument("--factorize", choices=["implicit-cg", "irspack-cg"], default="implicit-cg")
parser.add_argument("--rank", type=int, default=128)
parser.add_argument("--sweeps", type=int, default=10)
parser.add_argument("--k", type=int, default=100)
parser.add_argument("--threads", type=int, default=2)
given = parser.parse_args()
# Read when the libraries are loaded, and by `peers` when it is.
os.environ["THREADS"] = os.environ["POLARS_MAX_THREADS"] = str(given.threads)

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sparse

import peers

USERS_AT_A_TIME = 20_000


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def lists(users, items, k):
    """The best items of each user by inner product, exactly."""
    import faiss

    faiss.omp_set_num_threads(given.threads)
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(np.ascontiguousarray(items, np.float32))
    for first in range(0, len(users), USERS_AT_A_TIME):
        yield first, *index.search(np.ascontiguousarray(users[first : first + USERS_AT_A_TIME], np.float32), k)


def write(path, id_name, ids, other, item_ids, found, dim_k):
    writer = None
    for first, scores, items in found:
        rows = np.repeat(np.arange(first, first + len(items)), dim_k)
        table = pa.table({
            id_name: ids.take(pa.array(rows)),
            "rank": pa.array(np.tile(np.arange(1, dim_k + 1, dtype=np.uint16), len(items))),
            other: item_ids.take(pa.array(items.ravel())),
            "score": pa.array(scores.ravel()),
        })
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    writer.close()


def main():
    given.out.mkdir(parents=True, exist_ok=True)
    for library in {"duckdb": ["duckdb"], "polars": ["polars"]}[given.aggregate] + ["faiss"]:
        __import__(library)
    if given.encode == "onnx" and not (given.out / "model.onnx").exists():
        peers.export(given.model, given.out / "model.onnx")
    began = last = time.perf_counter()
    seconds = {}

    def step(name):
        nonlocal last
        now = time.perf_counter()
        seconds[name], last = round(now - last, 3), now

    pairs = given.out / "pairs.parquet"
    peers.aggregate(given.aggregate, given.shop, pairs)
    table = pq.read_table(pairs)
    matrix = sparse.csr_matrix((
        table["weight"].to_numpy(),
        (table["user_idx"].to_numpy(), table["item_idx"].to_numpy()),
    ))
    user_ids, item_ids = (
        pq.read_table(f"{pairs}.{name}")[name].combine_chunks() for name in ("user_id", "item_id")
    )
    step("aggregate")

    content = None
    if given.encode != "none":
        catalogue = pq.read_table(given.shop / "items.parquet")
        place = pa.compute.index_in(item_ids, catalogue["item_id"].combine_chunks().cast(item_ids.type))
        titles = catalogue["title"].fill_null("").to_pylist()
        more = catalogue["description"].fill_null("").to_pylist() if "description" in catalogue.column_names else titles
        texts = [f"{titles[at]}. {more[at]}" for at in place.to_pylist()]
        embedded, _ = peers.embed(given.encode, texts, given.model, given.out)
        content = unit(embedded)
        pq.write_table(
            pa.table({"item_id": item_ids, "embedding": pa.FixedSizeListArray.from_arrays(content.ravel(), content.shape[1])}),
            given.out / "item_embeddings.parquet", compression="zstd",
        )
        step("encode")

    user_factors, item_factors, _ = peers.fit(given.factorize, matrix, given.rank, given.sweeps, 0.1, 0.01)
    step("factorize")

    queries, vectors = user_factors, item_factors
    if content is not None:
        taste = unit(matrix @ content)
        # A source's deviation over the catalogue, a user: from its items' covariance.
        def standard(of_users, of_items):
            covariance = np.cov(of_items.T)
            return of_users / np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", of_users, covariance, of_users, optimize=True), 1e-12))[:, None]

        queries = np.hstack([standard(user_factors, item_factors), 0.5 * standard(taste, content)])
        vectors = np.hstack([item_factors, content])
    write(given.out / "recommendations.parquet", "user_id", user_ids, "item_id", item_ids, lists(queries, vectors, given.k), given.k)
    step("rank")
    alike = np.hstack([unit(item_factors)] + ([content] if content is not None else []))
    write(given.out / "similar_items.parquet", "item_id", item_ids, "similar_item_id", item_ids, lists(alike, alike, 50), 50)
    step("similar")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("\n" + json.dumps({
        "seconds": round(time.perf_counter() - began, 3), "steps": seconds, "peak_mib": round(memory),
        "users": matrix.shape[0], "items": matrix.shape[1], "pairs": int(matrix.nnz),
    }))


if __name__ == "__main__":
    main()
