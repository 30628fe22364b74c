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

JOB = pathlib.Path(__file__).with_name("night.toml")


def rows_of(folder):
    """The rows of a table, which every reader counts alike, with the same values in its first column."""
    import duckdb
    import pandas
    import polars
    import pyarrow.dataset

    files = f"'{folder}/**/*.parquet'"
    arrow = pyarrow.dataset.dataset(folder, partitioning="hive").to_table()
    key = arrow.schema.names[0]
    columns = {
        "DuckDB": [row[0] for row in duckdb.execute(f'SELECT "{key}" FROM {files}').fetchall()],
        "pyarrow": arrow.column(key).to_pylist(),
        "pandas": list(pandas.read_parquet(folder)[key]),
        "Polars": polars.scan_parquet(f"{folder}/**/*.parquet", hive_partitioning=True).collect()[key].to_list(),
    }
    def text(value):
        return "" if value is None or value != value else str(value)

    texts = {reader: sorted(map(text, values)) for reader, values in columns.items()}
    for reader, values in texts.items():
        assert values == texts["DuckDB"], f"{folder}: {key}: {reader} reads other values than DuckDB"
    return arrow.num_rows


def read(run):
    """Has every reader read every table, and one user's list as the README has it."""
    import duckdb
    import pandas
    import polars

    manifest = json.loads((run / "manifest.json").read_text())
    assert len(manifest["tables"]) >= 9, manifest["tables"]
    for table, record in manifest["tables"].items():
        # Rejected events and rejected items are two tables.
        folders = sorted((run / table).iterdir()) if table == "rejected" else [run / table]
        found = sum(rows_of(folder) for folder in folders)
        assert found == record["rows"], f"{table}: expected {record['rows']} rows; found {found}"
        print(f"{table:<18} {found:>8} rows: DuckDB, pandas, pyarrow and Polars agree")
    # As the README has it.
    user = duckdb.sql(f"SELECT user_id FROM '{run}/recommendations/*/*.parquet' LIMIT 1").fetchall()[0][0]
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
        (folder / "job.toml").write_text(JOB.read_text())
        run = [binary, "--quiet", "run", "job.toml", "--date", "2026-11-21"]
        subprocess.run(run, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        current = json.loads((folder / "out/CURRENT").read_text())
        command = [python, str(pathlib.Path(__file__).resolve()), "--read", str(folder / "out" / current["path"])]
        subprocess.run(command, check=True)


main()
