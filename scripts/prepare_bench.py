"""Public data sets as the tables that `make bench-quality` reads: prepare_bench.py RAW DATA

RAW holds what was downloaded, in folders as below; what is not there is left out. Every table's pairs are told by
their number and a SHA-256 over `user,item` lines in order, so that a split can be seen to be the one that BENCHMARKS.md
has figures of. Needs pyarrow, and openpyxl for Online Retail.

    gowalla/train.txt test.txt            a user and its items a line: LightGCN's repository, data/gowalla
    ml-1m/train.txt test.txt              the same: UltraGCN's repository, data/ml-1m
    beauty/reviews_Beauty_5.json.gz       5-core reviews of 2014: snap.stanford.edu/data/amazon, productGraph
    beauty/meta_Beauty.json.gz            titles, from there as well
    online-retail/Online Retail.xlsx      UCI Machine Learning Repository, data set 352
"""

import ast
import datetime
import gzip
import hashlib
import json
import pathlib
import sys

import pyarrow
import pyarrow.parquet as parquet

START = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)

# Of the splits that BENCHMARKS.md has figures of.
KNOWN = {
    "gowalla/train": "d105e24f7d3eba0acca6b80e784bdb0de26ede062a41169516bf2bdae5b7f3a7",
    "gowalla/test": "575da1322953e7206ca8e7d1895a078dba524d231ffa954e3181adea3996ba81",
    "ml-1m/train": "a9890b02c49ecf2685fc8755b7f110c93e25df04b58a77bc495fb5a2d6742a02",
    "ml-1m/test": "cd8da1f2d1813a7f2a02aa970cfb28994ebce3fe6d51cd24aa489fe98acbebb6",
    "beauty/train": "0cd97d2f201bdee368846d33dbe136df9ae1ebbd9b290fe16c2e3e2ade081439",
    "beauty/valid": "cf265769244cc6739d18813c1f16da58350c2bd5976827f792649c5f2b9db817",
    "beauty/test": "760ea894a5f34eade21c5c9351b7e9e5c3f7c9e5b0ebf69a07763d41d215fb11",
}


def write(data, name, rows):
    """Rows of user, item and the event's place in the user's order; equal places tell no order."""
    users, items, places = zip(*rows)
    lines = sorted(f"{user},{item}\n" for user, item in zip(users, items))
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    known = {None: "not one with figures", digest: "as in BENCHMARKS.md"}.get(KNOWN.get(name), "another split")
    print(f"{name}: {len(rows)} rows, sha256 {digest}, {known}")
    times = pyarrow.array([START + datetime.timedelta(days=place) for place in places], pyarrow.timestamp("us", "UTC"))
    path = data / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table({"user_id": list(users), "item_id": list(items), "event_time": times}), path)


def of_lines(path):
    """LightGCN's text: a user, then its items."""
    for line in path.read_text().splitlines():
        user, *items = map(int, line.split())
        yield from ((user, item, 0) for item in items)


def beauty(raw, data):
    """Each user's last item is the test, the one before it the validation; of equal times the file's order counts."""
    histories, titles = {}, {}
    with gzip.open(raw / "reviews_Beauty_5.json.gz", "rt") as lines:
        for line in lines:
            review = json.loads(line)
            histories.setdefault(review["reviewerID"], []).append((review["unixReviewTime"], review["asin"]))
    parts = {"train": [], "valid": [], "test": []}
    for user, history in sorted(histories.items()):
        history.sort(key=lambda event: event[0])
        for place, (_, item) in enumerate(history):
            part = {len(history) - 1: "test", len(history) - 2: "valid"}.get(place, "train")
            parts[part].append((user, item, place))
    for part, rows in parts.items():
        write(data, f"beauty/{part}", rows)
    with gzip.open(raw / "meta_Beauty.json.gz", "rt") as lines:
        for line in lines:
            # Python's notation, not JSON.
            product = ast.literal_eval(line)
            titles[product["asin"]] = product.get("title", "")
    items = sorted({item for rows in parts.values() for _, item, _ in rows})
    table = pyarrow.table({"item_id": items, "title": [titles.get(item, "") for item in items]})
    parquet.write_table(table, data / "beauty/items.parquet")


def online_retail(raw, data):
    """Every cell as it comes: dates as text, customers as numbers with gaps."""
    import openpyxl

    sheet = openpyxl.load_workbook(raw / "Online Retail.xlsx", read_only=True).active
    names, *rows = sheet.iter_rows(values_only=True)
    text = lambda value: None if value is None else str(value)
    columns = dict(zip(names, zip(*rows)))
    kinds = {"Quantity": int, "UnitPrice": float, "CustomerID": float}
    as_kind = lambda name, value: None if value is None else kinds.get(name, text)(value)
    table = pyarrow.table({name: [as_kind(name, value) for value in values] for name, values in columns.items()})
    path = data / "online-retail/online_retail.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)
    print(f"online-retail: {table.num_rows} rows")


raw, data = map(pathlib.Path, sys.argv[1:3])
for name in ["gowalla", "ml-1m"]:
    for part in ["train", "test"]:
        if (raw / name / f"{part}.txt").exists():
            write(data, f"{name}/{part}", list(of_lines(raw / name / f"{part}.txt")))
if (raw / "beauty").exists():
    beauty(raw / "beauty", data)
if (raw / "online-retail").exists():
    online_retail(raw / "online-retail", data)
