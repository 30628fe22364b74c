#!/usr/bin/env python3
"""One kernel by another program, timed without reading and writing but for `aggregate`, which is a file to a file.
Prints one JSON line.

    peers.py aggregate duckdb|duckdb-clean|polars SHOP PAIRS.parquet
    peers.py retrieve faiss|implicit QUERIES.f32 ITEMS.f32 COLUMNS K LISTS.u32
    peers.py encode onnx|torch|torch-bf16|cuda|cuda-bf16|cuda-f16 TEXTS.txt MODEL EMBEDDINGS.f32
    peers.py factorize implicit-cg|irspack-cg|irspack-ialspp ROWS.u32 COLS.u32 WEIGHTS.f32 RANK SWEEPS UNOBSERVED REGULARIZATION

Threads are THREADS (2).
"""
import json
import os
import sys
import time

THREADS = int(os.environ.get("THREADS", "2"))
os.environ["OMP_NUM_THREADS"] = str(THREADS)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "true"
os.environ["POLARS_MAX_THREADS"] = str(THREADS)

import numpy as np

# An event's weight by its type, as the job's defaults have it, halved every thirty days.
WEIGHTS = {"view": 1.0, "click": 2.0, "cart": 4.0, "purchase": 8.0}
HALF_LIFE_DAYS = 30.0


def weight_by_duckdb(last):
    """An event's weight in SQL, as old as it is at a moment in microseconds."""
    weights = " ".join(f"when '{name}' then {weight}" for name, weight in WEIGHTS.items())
    return f"case event_type {weights} end * pow(2, (epoch_us(event_time) - {last}) / 86400e6 / {HALF_LIFE_DAYS})"


def clean_by_duckdb(shop, events, pairs):
    """The same with what our stage does before: faulty rows are rejected with a reason and kept, users with too many
    events a day are taken for bots, searches are normalised, equal rows count once, and the cleaned events lie in a
    file by user and time, which pairs are made from."""
    import duckdb

    last = f"(select epoch_us(max(event_time)) from read_parquet('{pairs}.cleaned'))"
    connection = duckdb.connect()
    connection.execute(f"""
        set threads = {THREADS}; set timezone = 'UTC'; set preserve_insertion_order = false;
        create temp table item_ids as select item_id, (row_number() over (order by item_id) - 1)::uinteger as item_idx
            from (select distinct item_id from '{shop}/items.parquet');
        create temp table bots as select distinct user_id from (
            select user_id, count(*) as n from read_parquet('{events}') group by user_id, event_time::date having n > 10000);
        create temp view checked as select e.*, item_idx, case
                when e.user_id is null then 'null_user' when bots.user_id is not null then 'bot'
                when event_time is null then 'null_time' when event_type not in {(*WEIGHTS, "search")} then 'unknown_type'
                when quantity < 0 then 'negative_quantity' when item_idx is null and e.item_id is not null then 'unknown_item'
                when event_type <> 'search' and e.item_id is null then 'null_item'
                when event_type = 'search' and not coalesce(regexp_matches(query, '\\S'), false) then 'null_query'
            end as reason,
            case when event_type = 'search' then trim(regexp_replace(lower(query), '\\s+', ' ', 'g')) end as normalised
            from read_parquet('{events}') e left join item_ids using (item_id) left join bots on e.user_id = bots.user_id;
        copy (select * from checked where reason is not null) to '{pairs}.rejected' (format parquet, compression zstd);
        create temp table user_ids as select user_id, (row_number() over (order by user_id) - 1)::uinteger as user_idx
            from (select distinct user_id from checked where reason is null);
        copy (
            select user_idx, event_time, event_type, item_idx, normalised, quantity, price, session_id, count(*) as copies
            from checked join user_ids using (user_id) where reason is null group by all
            order by user_idx, event_time, event_type, item_idx, normalised, quantity, price, session_id
        ) to '{pairs}.cleaned' (format parquet, compression zstd);
        copy (
            select user_idx, item_idx, sum({weight_by_duckdb(last)})::float as weight
            from read_parquet('{pairs}.cleaned') where item_idx is not null group by user_idx, item_idx order by user_idx, item_idx
        ) to '{pairs}' (format parquet, compression zstd);
    """)


def aggregate(lib, shop, pairs):
    """Events to weighted pairs of users and items with dense indices by ascending id, and the ids, in files."""
    events = f"{shop}/events/**/*.parquet"
    seconds = time.perf_counter()
    if lib == "duckdb":
        import duckdb

        connection = duckdb.connect()
        connection.execute(f"set threads = {THREADS}; set timezone = 'UTC'; set preserve_insertion_order = false")
        kept = f"user_id is not null and item_id is not null and event_type in {tuple(WEIGHTS)}"
        last = connection.execute(f"select epoch_us(max(event_time)) from read_parquet('{events}') where {kept}")
        last = last.fetchone()[0]
        connection.execute(f"""
            create temp table weighed as
                select user_id, item_id, sum({weight_by_duckdb(last)}) as weight
                from read_parquet('{events}') where {kept} group by user_id, item_id;
            create temp table user_ids as
                select user_id, (row_number() over (order by user_id) - 1)::uinteger as user_idx
                from (select distinct user_id from weighed);
            create temp table item_ids as
                select item_id, (row_number() over (order by item_id) - 1)::uinteger as item_idx
                from (select distinct item_id from weighed);
            copy (
                select user_idx, item_idx, weight::float as weight
                from weighed join user_ids using (user_id) join item_ids using (item_id) order by user_idx, item_idx
            ) to '{pairs}' (format parquet, compression zstd);
            copy (select user_id from user_ids order by user_idx) to '{pairs}.user_id' (format parquet);
            copy (select item_id from item_ids order by item_idx) to '{pairs}.item_id' (format parquet);
        """)
    elif lib == "duckdb-clean":
        clean_by_duckdb(shop, events, pairs)
    else:
        import polars as pl

        kept = pl.scan_parquet(events, hive_partitioning=False).filter(
            pl.col("user_id").is_not_null() & pl.col("item_id").is_not_null() & pl.col("event_type").is_in(list(WEIGHTS))
        )
        days = (pl.col("event_time").max() - pl.col("event_time")).dt.total_microseconds() / 86_400e6
        weight = pl.col("event_type").replace_strict(WEIGHTS, return_dtype=pl.Float64) * 2.0 ** (-days / HALF_LIFE_DAYS)
        dense = lambda name: (pl.col(name).rank("dense") - 1).cast(pl.UInt32)
        weighed = (
            kept.with_columns(weight=weight).group_by("user_id", "item_id").agg(pl.col("weight").sum())
            .with_columns(user_idx=dense("user_id"), item_idx=dense("item_id"), weight=pl.col("weight").cast(pl.Float32))
            .sort("user_idx", "item_idx").collect(engine="streaming")
        )
        weighed.select("user_idx", "item_idx", "weight").write_parquet(pairs, compression="zstd")
        for name in ("user", "item"):
            ids = weighed.select(f"{name}_id", f"{name}_idx").unique().sort(f"{name}_idx")
            ids.select(f"{name}_id").write_parquet(f"{pairs}.{name}_id")
    seconds = time.perf_counter() - seconds
    import pyarrow.parquet as pq

    return {"seconds": seconds, "pairs": pq.read_metadata(pairs).num_rows}


def retrieve(lib, queries, items, columns, k, lists):
    queries, items = (np.fromfile(path, np.float32).reshape(-1, int(columns)) for path in (queries, items))
    k = int(k)
    if lib == "faiss":
        import faiss

        faiss.omp_set_num_threads(THREADS)
        index = faiss.IndexFlatIP(items.shape[1])
        index.add(items)
        start = time.perf_counter()
        _, found = index.search(queries, k)
    else:
        from implicit.cpu.topk import topk

        start = time.perf_counter()
        found, _ = topk(items, queries, k, num_threads=THREADS)
    seconds = time.perf_counter() - start
    found.astype(np.uint32).tofile(lists)
    return {"seconds": seconds}


def export(model, path):
    """The transformer without pooling, as ONNX."""
    import torch
    from transformers import AutoModel

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = AutoModel.from_pretrained(model, attn_implementation="eager").eval()

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.model(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            ).last_hidden_state

    names = ["input_ids", "attention_mask", "token_type_ids"]
    one = torch.ones(2, 16, dtype=torch.long)
    axes = {name: {0: "batch", 1: "tokens"} for name in [*names, "states"]}
    torch.onnx.export(
        Model(), (one, one, one * 0), path, input_names=names, output_names=["states"],
        dynamic_axes=axes, dynamo=False, opset_version=17,
    )


def encode(lib, texts, model, embeddings):
    with open(texts, encoding="utf-8") as lines:
        texts = lines.read().splitlines()
    found, seconds = embed(lib, texts, model, os.path.dirname(embeddings))
    found.tofile(embeddings)
    return {"seconds": seconds}


def embed(lib, texts, model, work):
    """Unit embeddings, and the seconds they took once the model was loaded; `work` keeps the model as ONNX."""
    if lib.startswith(("torch", "cuda")):
        import torch
        from sentence_transformers import SentenceTransformer

        on_gpu = lib.startswith("cuda")
        if not on_gpu:
            torch.set_num_threads(THREADS)
        encoder = SentenceTransformer(model, device="cuda" if on_gpu else "cpu")
        precision = lib.partition("-")[2]
        encoder = {"": encoder.float, "bf16": encoder.bfloat16, "f16": encoder.half}[precision]()
        best = float("inf")
        # A GPU is full with larger batches than a core; which of them does best depends on the model.
        for batch in (128, 512, 2048) if on_gpu else (64,):
            encoder.encode(texts[:batch], batch_size=batch)
            start = time.perf_counter()
            found = encoder.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)
            best = min(best, time.perf_counter() - start)
        return np.asarray(found, np.float32), best
    import onnxruntime
    from tokenizers import Tokenizer

    path = os.path.join(work, "model.onnx")
    if not os.path.exists(path):
        export(model, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(os.path.join(model, "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(128)
    one = np.ones((2, 16), np.int64)
    session.run(None, {"input_ids": one, "attention_mask": one, "token_type_ids": one * 0})
    start = time.perf_counter()
    ids = [text.ids for text in tokenizer.encode_batch(texts)]
    order = sorted(range(len(texts)), key=lambda at: -len(ids[at]))
    found = np.empty((len(texts), 384), np.float32)
    for first in range(0, len(order), 64):
        rows = order[first : first + 64]
        length = max(len(ids[at]) for at in rows)
        batch, mask = np.zeros((2, len(rows), length), np.int64)
        for row, at in enumerate(rows):
            batch[row, : len(ids[at])] = ids[at]
            mask[row, : len(ids[at])] = 1
        states = session.run(
            None, {"input_ids": batch, "attention_mask": mask, "token_type_ids": np.zeros_like(batch)}
        )[0]
        mean = (states * mask[..., None]).sum(1)
        found[rows] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return found, time.perf_counter() - start


def fit(lib, matrix, rank, sweeps, unobserved, regularization):
    """Users' and items' factors, and the seconds they took."""
    if lib == "implicit-cg":
        import threadpoolctl
        from implicit.cpu.als import AlternatingLeastSquares

        # Confidence c on observed (1 - s)^2 and 1 on every other s^2: the same, over `unobserved`.
        scaled = matrix.copy()
        scaled.data = scaled.data / unobserved + 1.0
        # As the library asks for: threads of its own, none of the linear algebra's.
        with threadpoolctl.threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                factors=rank, regularization=regularization / unobserved, iterations=sweeps, alpha=1.0, use_cg=True,
                num_threads=THREADS, random_state=1, calculate_training_loss=False, dtype=np.float32,
            )
            start = time.perf_counter()
            model.fit(scaled, show_progress=False)
            seconds = time.perf_counter() - start
        users, items = model.user_factors, model.item_factors
    else:
        from irspack.recommenders import IALSRecommender

        model = IALSRecommender(
            matrix, n_components=rank, alpha0=unobserved, reg=regularization, nu=0.0,
            solver_type="CG" if lib == "irspack-cg" else "IALSPP", train_epochs=sweeps, n_threads=THREADS,
            loss_type="IALSPP", confidence_scaling="none",
        )
        start = time.perf_counter()
        model.learn()
        seconds = time.perf_counter() - start
        users, items = model.get_user_embedding(), model.get_item_embedding()
    return users, items, seconds


def factorize(lib, rows, cols, weights, rank, sweeps, unobserved, regularization):
    import scipy.sparse as sparse

    rows, cols = np.fromfile(rows, np.uint32), np.fromfile(cols, np.uint32)
    matrix = sparse.csr_matrix((np.fromfile(weights, np.float32), (rows, cols)))
    unobserved, regularization = float(unobserved), float(regularization)
    users, items, seconds = fit(lib, matrix, int(rank), int(sweeps), unobserved, regularization)
    users, items = users.astype(np.float64), items.astype(np.float64)
    pairs = matrix.tocoo()
    observed = 0.0
    for at in range(0, pairs.nnz, 1 << 18):
        some = slice(at, at + (1 << 18))
        scores = np.einsum("ij,ij->i", users[pairs.row[some]], items[pairs.col[some]])
        observed += float((pairs.data[some] * (1 - scores) ** 2).sum())
    everywhere = float(np.einsum("ij,ij->", users.T @ users, items.T @ items))
    length = float((users**2).sum() + (items**2).sum())
    return {"seconds": seconds, "objective": observed + unobserved * everywhere + regularization * length}


if __name__ == "__main__":
    kernel = {"aggregate": aggregate, "retrieve": retrieve, "encode": encode, "factorize": factorize}[sys.argv[1]]
    answer = kernel(*sys.argv[2:])
    # Some libraries draw progress on stdout and leave it there.
    print("\n" + json.dumps(answer))
