#!/usr/bin/env python3
"""Hides a tenth of the items from training: hide_items.py DATA OUT

DATA holds train.parquet, valid.parquet and test.parquet (user_id, item_id, ...); OUT gets the same three, the
first two without the hidden items and the last with nothing else, so that each of its users is asked for an
item that nobody was seen to turn to. An item is hidden where the SHA-256 of its id, modulo 10, is 0.
"""
import hashlib
import pathlib
import sys

import pyarrow as pa
import pyarrow.parquet as pq


def is_hidden(item):
    return int(hashlib.sha256(str(item).encode()).hexdigest(), 16) % 10 == 0


data, out = map(pathlib.Path, sys.argv[1:])
out.mkdir(parents=True, exist_ok=True)
for name in ["train", "valid", "test"]:
    rows = pq.read_table(data / f"{name}.parquet")
    keep = [is_hidden(item) == (name == "test") for item in rows["item_id"].to_pylist()]
    rows = rows.filter(pa.array(keep))
    pq.write_table(rows, out / f"{name}.parquet")
    print(f"{name}: {rows.num_rows} rows, {'hidden items alone' if name == 'test' else 'hidden items left out'}")
