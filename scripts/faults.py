"""Faults at random moments of a night: system calls that fail, short and failing writes, kills, a store's errors.

    python3 scripts/faults.py LAMPLIGHTER SHOP-EXAMPLE [FAULTS]

A made-up shop has a published night. The next one is run under strace, which lets one system call of it fail
(no space, I/O error) or kills the process there; with a library before it that at some write to a file takes half
of the bytes, or fails; or with its output in an S3 server behind a proxy that answers 500, drops the connection
before or after the server has done its part, or kills the process at some request. After each fault CURRENT must
name a whole run, and the night run again must end with the rows of one that nothing happened to. A night that hangs
is a failure. Needs strace, a C compiler, and the packages pyarrow and moto[server].
"""

import errno
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
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
ERRORS = ["ENOSPC", "EIO"]
# A night takes seconds, one whose store answers with errors tries again for a while.
PATIENCE_S = 180

# What a disk may do at any write: take half of the bytes, or fail. Strace cannot be told to leave alone the writes by
# which threads wake each other: they are whole or none, no kernel fails them, and who is not woken waits for ever.
DISK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
static atomic_long calls;
ssize_t write(int file, const void *bytes, size_t n) {
    ssize_t (*whole)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    struct stat found;
    if (fstat(file, &found) != 0 || !S_ISREG(found.st_mode)) return whole(file, bytes, n);
    long call = atomic_fetch_add(&calls, 1) + 1;
    const char *at = getenv("DISK_AT"), *fault = getenv("DISK_ERRNO");
    if (at && call == atol(at)) {
        if (fault) { errno = atoi(fault); return -1; }
        if (n > 1) n /= 2;
    }
    return whole(file, bytes, n);
}
__attribute__((destructor)) static void count(void) {
    const char *path = getenv("DISK_COUNT");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (file) { fprintf(file, "%ld", calls); fclose(file); }
}
"""


def communicate(night, what):
    """What a process says until it ends. One that does not is killed, with all that it started."""
    try:
        _, said = night.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(night.pid, signal.SIGKILL)
        raise AssertionError(f"a night hung for {PATIENCE_S} s: {what}") from None
    return night.returncode, said


def start(folder, command, environment):
    return subprocess.Popen(
        command, cwd=folder, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, start_new_session=True)


def run(folder, date, strace=(), environment=None):
    command = [*strace, binary, "run", "job.toml", "--date", date]
    return communicate(start(folder, command, environment or {}), (command, environment))


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
        self.night = start(folder, command, self.environment())
        return communicate(self.night, (command, fault, at))


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
    code, said = run(folder, "2026-11-20")
    assert code == 0, said
    _, yesterday = whole(folder)
    shutil.copytree(folder / "out", folder / "before")
    (folder / "disk.c").write_text(DISK)
    disk = {"LD_PRELOAD": str(folder / "disk.so")}
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "disk.so", "disk.c"], cwd=folder, check=True)

    # How often an unbroken night makes each call and writes to files, and what it ends with.
    watch = ["strace", "-f", "-qq", "-o", "calls", "-e", f"trace={','.join(CALLS)}"]
    code, said = run(folder, "2026-11-21", watch)
    assert code == 0, said
    _, tonight = whole(folder)
    counts = dict.fromkeys(CALLS, 0)
    for line in (folder / "calls").read_text(errors="replace").splitlines():
        name = line.split("(")[0].split()[-1]
        counts[name] = counts.get(name, 0) + ("resumed" not in line)
    (folder / "calls").unlink()
    shutil.rmtree(folder / "out")
    shutil.copytree(folder / "before", folder / "out")
    code, said = run(folder, "2026-11-21", environment={**disk, "DISK_COUNT": "writes"})
    assert (code, whole(folder)) == (0, ("2026-11-21", tonight)), said
    writes = int((folder / "writes").read_text())

    # Of write, strace only kills: see DISK.
    faults = [(call, f"error={error}") for call in CALLS if call != "write" for error in ERRORS]
    faults += [(call, "signal=KILL") for call in CALLS]
    faults = [(call, what) for call, what in faults if counts[call] > 0]
    faults += [("disk", what) for what in ["half", *ERRORS] for _ in range(3)]
    random.seed(7)
    codes, n_disk, n_store = {}, 0, n_faults // 4
    for number in range(n_faults - n_store):
        shutil.rmtree(folder / "out")
        shutil.copytree(folder / "before", folder / "out")
        call, what = random.choice(faults)
        when = random.randint(1, writes if call == "disk" else counts[call])
        if call == "disk":
            n_disk += 1
            wrong = {} if what == "half" else {"DISK_ERRNO": str(getattr(errno, what))}
            code, said = run(folder, "2026-11-21", environment={**disk, "DISK_AT": str(when), **wrong})
            assert code == 0 or what != "half", (call, what, when, said)
        else:
            inject = ["-e", f"trace={call}", "-e", f"inject={call}:{what}:when={when}"]
            code, said = run(folder, "2026-11-21", ["strace", "-f", "-qq", "-o", "/dev/null", *inject])
        codes[code] = codes.get(code, 0) + 1
        date, lists = whole(folder)
        assert lists == {"2026-11-20": yesterday, "2026-11-21": tonight}[date], (call, what, when, said)
        assert code != 0 or date == "2026-11-21", (call, what, when, said)
        again, said_then = run(folder, "2026-11-21")
        assert again == 0, (call, what, when, said, said_then)
        assert whole(folder) == ("2026-11-21", tonight), (call, what, when)
    requests = in_store(folder, yesterday, tonight, n_store, codes)
    print(
        f"{n_faults} faults, {n_disk} of them at one of {writes} writes to files, {n_store} at one of {requests} requests"
        f" to a store, the others at one of {sum(counts.values())} system calls; no broken publish; exit codes {codes}"
    )
