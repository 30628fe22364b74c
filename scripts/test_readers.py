"""DuckDB, pandas, pyarrow and Polars read every table of a run, and count the rows that its manifest counts.

    python3 scripts/test_readers.py LAMPLIGHTER SHOP-EXAMPLE [ENVIRONMENT]

A made-up shop's night is run into a temporary folder; the readers come from PyPI into a virtual environment, which
is made where it is missing.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import venv

READERS = ["duckdb==2.0.1", "pandas==3.1.1", "polars==2.1.0", "pyarrow==26.0.1"]

JOB = """
name = "night"
output = "out"
seed = 7
threads = 2
[inputs.events]
path = "data/events"
[inputs.items]
path = "data/items.parquet"
[factors]
rank = 16
iterations = 4
[ranking]
top_k = 20
weights = { factors = 1.0, popularity = 0.1, history = 0.5 }
[evaluation]
bootstrap = 20
[publish]
buckets = 4
"""


def read(run):
    """What each reader counts in each table, and what it takes to be the key's type."""
    import duckdb
    import pandas
    import polars
    import pyarrow.dataset

    manifest = json.loads((run / "manifest.json").read_text())
    assert len(manifest["tables"]) >= 9, manifest["tables"]
    for table, record in manifest["tables"].items():
        folder, rows = run / table, record["rows"]
        relation = duckdb.sql(f"SELECT * FROM '{folder}/**/*.parquet'")
        arrow = pyarrow.dataset.dataset(folder, partitioning="hive").to_table()
        frame = pandas.read_parquet(folder)
        lazy = polars.scan_parquet(f"{folder}/**/*.parquet", hive_partitioning=True).collect()
        counts = {
            "duckdb": relation.count("*").fetchone()[0],
            "pyarrow": arrow.num_rows,
            "pandas": len(frame),
            "polars": lazy.height,
        }
        assert set(counts.values()) == {rows}, f"{table}: expected {rows} rows; found {counts}"
        key = arrow.schema.names[0]
        found = [sorted(map(str, values))[:5] for values in (
            arrow.column(key).to_pylist(), list(frame[key]), lazy[key].to_list(),
            [row[0] for row in relation.project(f'"{key}"').fetchall()],
        )]
        assert all(values == found[0] for values in found), f"{table}: {key}: {found}"
        print(f"{table:<18} {rows:>8} rows, {len(relation.columns):>2} columns: DuckDB, pandas, pyarrow, Polars agree")
    # As the README has it.
    user = duckdb.sql(f"SELECT user_id FROM '{run}/recommendations/*/*.parquet' LIMIT 1").fetchone()[0]
    by_sql = duckdb.sql(
        f"SELECT item_id FROM '{run}/recommendations/*/*.parquet' WHERE user_id = '{user}' ORDER BY rank"
    ).fetchall()
    by_frame = pandas.read_parquet(run / "recommendations").query("user_id == @user").sort_values("rank")
    by_filter = pandas.read_parquet(run / "recommendations", filters=[("user_id", "==", user)]).sort_values("rank")
    by_scan = (
        polars.scan_parquet(f"{run}/recommendations/**/*.parquet").filter(polars.col("user_id") == user).sort("rank")
    )
    lists = [
        [row[0] for row in by_sql], list(by_frame["item_id"]), list(by_filter["item_id"]),
        by_scan.collect()["item_id"].to_list(),
    ]
    assert len(lists[0]) == 20 and all(items == lists[0] for items in lists), lists


def main():
    if sys.argv[1] == "--read":
        read(pathlib.Path(sys.argv[2]))
        return
    binary, shop = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:3])
    environment = pathlib.Path(sys.argv[3] if len(sys.argv) > 3 else ".readers").resolve()
    python, whole = environment / "bin/python", environment / "whole"
    if not whole.exists() or whole.read_text() != "\n".join(READERS):
        venv.create(environment, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *READERS], check=True)
        whole.write_text("\n".join(READERS))
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        generate = [shop, "data", "--users", "300", "--items", "200", "--events", "10000", "--dirty", "0.01"]
        subprocess.run([*generate, "--end", "2026-11-21"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (folder / "job.toml").write_text(JOB)
        run = [binary, "run", "job.toml", "--date", "2026-11-21"]
        subprocess.run(run, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        current = json.loads((folder / "out/CURRENT").read_text())
        command = [python, str(pathlib.Path(__file__).resolve()), "--read", str(folder / "out" / current["path"])]
        subprocess.run(command, check=True)


main()
