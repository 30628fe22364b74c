"""Faults at random moments of a night: system calls that fail, short writes, kills, and a store's errors.

    python3 scripts/faults.py LAMPLIGHTER SHOP-EXAMPLE [FAULTS]

A made-up shop has a published night. The next one is run under strace, which lets one system call of it fail
(no space, I/O error) or kills the process there; with a library before it that writes half of what it is asked to
at some call; or with its output in an S3 server behind a proxy that answers 500, drops the connection before or
after the server has done its part, or kills the process at some request. After each fault CURRENT must name a whole
run, and the night run again must end with the rows of one that nothing happened to. Needs strace, a C compiler, and
the packages pyarrow and moto[server].
"""

import hashlib
import json
import pathlib
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import pyarrow.parquet as parquet

binary, shop = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:3])
n_faults = int(sys.argv[3]) if len(sys.argv) > 3 else 200

JOB = pathlib.Path(__file__).with_name("night.toml").read_text() + """
[behavior]
later_events = "exclude"
"""

CALLS = ["openat", "write", "fsync", "rename", "mkdir", "link", "linkat", "unlink", "ftruncate", "read"]
WHATS = ["error=ENOSPC", "error=EIO", "signal=KILL"]

# Half of the bytes at one call, which is what a disk may do at any.
SHORT = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
static atomic_long calls;
ssize_t write(int file, const void *bytes, size_t n) {
    ssize_t (*whole)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    const char *at = getenv("SHORT_AT");
    struct stat found;
    // Threads wake each other by a write that is whole or none: a disk's are to files.
    int is_file = fstat(file, &found) == 0 && S_ISREG(found.st_mode);
    if (at && is_file && n > 1 && atomic_fetch_add(&calls, 1) + 1 == atol(at)) n /= 2;
    return whole(file, bytes, n);
}
"""


def run(folder, date, strace=(), more=(), environment=None):
    command = [*strace, binary, "run", "job.toml", "--date", date, *more]
    environment = {**os.environ, **(environment or {})}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)


def whole(folder, output="out"):
    """The run that CURRENT names, every table of it as its manifest counts it; a hash of its lists."""
    current = json.loads((folder / output / "CURRENT").read_text())
    path = folder / output / current["path"]
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


class Store:
    """An S3 server, and a proxy before it with one fault at a time."""

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except OSError:
                time.sleep(0.1)
        self.ask("PUT", "/shop")
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.lock, self.asked, self.fault, self.at, self.night = threading.Lock(), 0, None, 0, None
        threading.Thread(target=self.serve, daemon=True).start()

    def environment(self):
        port = self.listener.getsockname()[1]
        keys = {"AWS_ACCESS_KEY_ID": "shop", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
        return {**keys, "AWS_ALLOW_HTTP": "true", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}

    def ask(self, method, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body, method=method)
        # Else it is taken for a form, of which nothing is kept.
        request.add_header("Content-Type", "application/octet-stream")
        # A signature that nobody checks, without which the server takes nobody in.
        request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=shop/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0")
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    def keys(self, prefix):
        text = self.ask("GET", f"/shop?list-type=2&max-keys=1000&prefix={prefix}").decode()
        return re.findall("<Key>(.*?)</Key>", text)

    def upload(self, folder, prefix):
        for file in sorted(path for path in folder.rglob("*") if path.is_file() and ".night.lock" not in path.name):
            self.ask("PUT", f"/shop/{prefix}/{file.relative_to(folder)}", file.read_bytes())

    def download(self, prefix, folder):
        shutil.rmtree(folder, ignore_errors=True)
        for key in self.keys(f"{prefix}/"):
            file = folder / key.removeprefix(f"{prefix}/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self.ask("GET", f"/shop/{key}"))

    def serve(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.pass_on, args=(client,), daemon=True).start()

    def pass_on(self, client):
        """One request, then the connection is closed; a client opens another one."""
        with client:
            received = b""
            while b"\r\n\r\n" not in received:
                part = client.recv(65536)
                if not part:
                    return
                received += part
            head, body = received.split(b"\r\n\r\n", 1)
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            while length and len(body) < int(length[1]):
                part = client.recv(65536)
                if not part:
                    return
                body += part
            with self.lock:
                self.asked += 1
                fault = self.fault if self.asked == self.at else None
            if fault == "kill":
                self.night.kill()
            if fault in ("kill", "drop request"):
                return
            if fault == "500":
                client.sendall(b"HTTP/1.1 500 Out Of Order\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            head = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head) + b"\r\nConnection: close\r\n\r\n"
            with socket.create_connection(("127.0.0.1", self.port)) as server:
                server.sendall(head + body)
                answer = b"".join(iter(lambda: server.recv(65536), b""))
            try:
                client.sendall(answer[: len(answer) // 2] if fault == "drop answer" else answer)
            except OSError:
                pass

    def run(self, folder, date, more, fault=None, at=0):
        self.asked, self.fault, self.at = 0, fault, at
        command = [binary, "run", "job.toml", "--date", date, *more]
        environment = {**os.environ, **self.environment()}
        self.night = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        _, said = self.night.communicate()
        return self.night.returncode, said


def in_store(folder, yesterday, tonight, n_faults, codes):
    """The same, with the output in a store."""
    store = Store()
    try:
        of = lambda name: ["--set", f"output=s3://shop/{name}", "--set", f"work=work-{name}"]
        store.upload(folder / "before", "unbroken")
        code, said = store.run(folder, "2026-11-21", of("unbroken"))
        assert code == 0, said
        requests = store.asked
        for number in range(n_faults):
            name = f"s{number}"
            store.upload(folder / "before", name)
            fault = random.choice(["500", "drop request", "drop answer", "kill"])
            at = random.randint(1, requests)
            code, said = store.run(folder, "2026-11-21", of(name), fault, at)
            codes[code] = codes.get(code, 0) + 1
            assert code == 0 or fault == "kill", (fault, at, code, said)
            store.download(name, folder / "copy")
            date, lists = whole(folder, "copy")
            assert lists == {"2026-11-20": yesterday, "2026-11-21": tonight}[date], (fault, at, said)
            code, said = store.run(folder, "2026-11-21", of(name))
            assert code == 0, (fault, at, said)
            store.download(name, folder / "copy")
            assert whole(folder, "copy") == ("2026-11-21", tonight), (fault, at)
            shutil.rmtree(folder / f"work-{name}")
        return requests
    finally:
        store.server.kill()
        store.server.wait()


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

    (folder / "short.c").write_text(SHORT)
    library = str(folder / "short.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, "short.c"], cwd=folder, check=True)

    random.seed(7)
    codes, n_short, n_store = {}, 0, n_faults // 4
    for number in range(1, n_faults - n_store + 1):
        shutil.rmtree(folder / "out")
        shutil.copytree(folder / "before", folder / "out")
        call = random.choice([call for call in [*CALLS, "short write"] if counts.get(call.split()[-1], 0) > 0])
        what, when = random.choice(WHATS), random.randint(1, counts[call.split()[-1]])
        if call == "short write":
            what, n_short = "half", n_short + 1
            broken = run(folder, "2026-11-21", environment={"LD_PRELOAD": library, "SHORT_AT": str(when)})
            assert broken.returncode == 0, (call, when, broken.stderr)
        else:
            inject = ["-e", f"trace={call}", "-e", f"inject={call}:{what}:when={when}"]
            broken = run(folder, "2026-11-21", ["strace", "-f", "-qq", "-o", "/dev/null", *inject])
        codes[broken.returncode] = codes.get(broken.returncode, 0) + 1
        date, lists = whole(folder)
        expected = {"2026-11-20": yesterday, "2026-11-21": tonight}[date]
        assert lists == expected, (call, what, when, broken.stderr)
        if broken.returncode == 0:
            assert date == "2026-11-21", (call, what, when, broken.stderr)
        again = run(folder, "2026-11-21")
        assert again.returncode == 0, (call, what, when, broken.stderr, again.stderr)
        assert whole(folder) == ("2026-11-21", tonight), (call, what, when)
    requests = in_store(folder, yesterday, tonight, n_store, codes)
    print(
        f"{n_faults} faults, {n_short} of them short writes, over {sum(counts.values())} system calls and {n_store} of them"
        f" over {requests} requests to a store; no broken publish; exit codes {codes}"
    )
