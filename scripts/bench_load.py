"""Users a second into a local Redis: `lamplighter load` beside a plain redis-py pipeline.

    python3 scripts/bench_load.py LAMPLIGHTER JOB

Both write the users' lists of the current run, with the same keys, values and time to live, 500 lists a
pipeline, into an empty redis-server of their own; `lamplighter` also counts them afterwards, in the same time.
Needs redis-server, and the packages redis and pyarrow.
"""

import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import tomllib

import pyarrow.parquet as parquet
import redis

binary, job = sys.argv[1], pathlib.Path(sys.argv[2])
output = job.parent / tomllib.loads(job.read_text())["output"]
current = json.loads((output / "CURRENT").read_text())
tables = output / current["path"] / "recommendations"


class Server:
    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = tempfile.TemporaryDirectory()
        arguments = ["--port", str(self.port), "--save", "", "--appendonly", "no", "--dir", self.folder.name]
        self.process = subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)
        self.client = redis.Redis(port=self.port)
        while True:
            try:
                self.client.ping()
                return self
            except redis.ConnectionError:
                time.sleep(0.01)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def plain(client):
    """What a team writes in an afternoon: a table at a time, a pipeline of 500 lists."""
    n_users = 0
    pipeline = client.pipeline(transaction=False)
    for file in sorted(tables.glob("*/*.parquet")):
        table = parquet.read_table(file, columns=["user_id", "item_id"])
        users, items = table["user_id"].to_pylist(), table["item_id"].to_pylist()
        begin = 0
        for end in range(1, len(users) + 1):
            if end == len(users) or users[end] != users[begin]:
                value = json.dumps(items[begin:end], separators=(",", ":"))
                pipeline.set(f"{current['run_id']}:u:{users[begin]}", value, ex=7 * 86_400)
                n_users += 1
                begin = end
                if n_users % 500 == 0:
                    pipeline.execute()
    pipeline.execute()
    return n_users


def ours(port):
    subprocess.run([binary, "load", str(job), f"redis://127.0.0.1:{port}/0"], check=True, stdout=subprocess.DEVNULL)


for attempt in range(3):
    with Server() as server:
        began = time.perf_counter()
        ours(server.port)
        ours_s = time.perf_counter() - began
        keys = server.client.dbsize()
        memory = server.client.info("memory")["used_memory"]
        sample = next(server.client.scan_iter(f"{current['run_id']}:u:*"))
        value = server.client.get(sample)
    with Server() as server:
        began = time.perf_counter()
        n_users = plain(server.client)
        plain_s = time.perf_counter() - began
        assert server.client.get(sample) == value, "both write the same values"
    print(
        f"{n_users} users: lamplighter load {n_users / ours_s:,.0f} users/s ({keys} keys of all kinds, counted too;"
        f" {memory / 2**20:.0f} MiB), redis-py pipeline {n_users / plain_s:,.0f} users/s, ratio {plain_s / ours_s:.2f}"
    )
