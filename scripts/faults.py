"""Faults at random moments of a night: system calls that fail, and kills.

    python3 scripts/faults.py LAMPLIGHTER SHOP-EXAMPLE [FAULTS]

A made-up shop has a published night. The next one is run under strace, which lets one system call of it fail
(no space, I/O error) or kills the process there. After each fault CURRENT must name a whole run, and the night
run again must end with the rows of one that nothing happened to. Needs strace and the package pyarrow.
"""

import hashlib
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

import pyarrow.parquet as parquet

binary, shop = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:3])
n_faults = int(sys.argv[3]) if len(sys.argv) > 3 else 200

JOB = """
name = "night"
output = "out"
seed = 7
threads = 2
[inputs.events]
path = "data/events"
[inputs.items]
path = "data/items.parquet"
[behavior]
later_events = "exclude"
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

CALLS = ["openat", "write", "fsync", "rename", "mkdir", "link", "linkat", "unlink", "ftruncate", "read"]
WHATS = ["error=ENOSPC", "error=EIO", "signal=KILL"]


def run(folder, date, strace=()):
    command = [*strace, binary, "run", "job.toml", "--date", date]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def whole(folder):
    """The run that CURRENT names, every table of it as its manifest counts it; a hash of its lists."""
    current = json.loads((folder / "out/CURRENT").read_text())
    path = folder / "out" / current["path"]
    manifest = json.loads((path / "manifest.json").read_text())
    for table, record in manifest["tables"].items():
        files = sorted((path / table).glob("**/*.parquet"))
        rows = sum(parquet.read_metadata(file).num_rows for file in files)
        size = sum(file.stat().st_size for file in files)
        assert (rows, size, len(files)) == (record["rows"], record["bytes"], record["files"]), (table, record)
    digest = hashlib.sha256()
    for table in ["recommendations", "similar_items", "query_items", "popular_items"]:
        for file in sorted((path / table).glob("**/*.parquet")):
            digest.update(str(parquet.ParquetFile(file).read().to_pylist()).encode())
    return manifest["date"], digest.hexdigest()


with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    generate = [shop, "data", "--users", "200", "--items", "150", "--events", "4000", "--days", "15"]
    subprocess.run([*generate, "--end", "2026-11-21"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (folder / "job.toml").write_text(JOB)
    assert run(folder, "2026-11-20").returncode == 0
    _, yesterday = whole(folder)
    shutil.copytree(folder / "out", folder / "before")

    # How often an unbroken night makes each call, and what it ends with.
    counted = run(folder, "2026-11-21", ["strace", "-f", "-qq", "-o", "calls", "-e", f"trace={','.join(CALLS)}"])
    assert counted.returncode == 0, counted.stderr
    _, tonight = whole(folder)
    counts = dict.fromkeys(CALLS, 0)
    for line in (folder / "calls").read_text(errors="replace").splitlines():
        name = line.split("(")[0].split()[-1]
        counts[name] = counts.get(name, 0) + ("resumed" not in line)
    (folder / "calls").unlink()

    random.seed(7)
    codes = {}
    for number in range(1, n_faults + 1):
        shutil.rmtree(folder / "out")
        shutil.copytree(folder / "before", folder / "out")
        call = random.choice([call for call in CALLS if counts[call] > 0])
        what, when = random.choice(WHATS), random.randint(1, counts[call])
        strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{what}:when={when}"]
        broken = run(folder, "2026-11-21", strace)
        codes[broken.returncode] = codes.get(broken.returncode, 0) + 1
        date, lists = whole(folder)
        expected = {"2026-11-20": yesterday, "2026-11-21": tonight}[date]
        assert lists == expected, (call, what, when, broken.stderr)
        if broken.returncode == 0:
            assert date == "2026-11-21", (call, what, when, broken.stderr)
        again = run(folder, "2026-11-21")
        assert again.returncode == 0, (call, what, when, broken.stderr, again.stderr)
        assert whole(folder) == ("2026-11-21", tonight), (call, what, when)
    print(f"{n_faults} faults over {sum(counts.values())} system calls, no broken publish; exit codes {codes}")
