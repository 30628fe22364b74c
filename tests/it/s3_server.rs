//! A real S3 server (moto) on a free port of this machine, and a proxy before it that can do what networks do.
//!
//! The server comes from PyPI into a virtual environment of the tests' own, made when it is first needed. Both stop
//! when they are dropped.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const MOTO: &str = "5.2.5";
pub(crate) const SECRET: &str = "the-shops-own-secret-key";

pub(crate) struct S3 {
    server: Child,
    pub(crate) port: u16,
}

/// The server's Python, in a virtual environment that is made once.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("moto-{MOTO}"));
        let (python, whole) = (folder.join("bin/python"), folder.join("whole"));
        if !whole.exists() {
            let _ = std::fs::remove_dir_all(&folder);
            let run = |command: &mut Command| {
                let done = command.stdout(Stdio::null()).status().expect("python3 is there");
                assert!(done.success(), "no moto: {command:?}");
            };
            run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
            let moto = format!("moto[server]=={MOTO}");
            run(Command::new(&python).args(["-m", "pip", "install", "--quiet", &moto]));
            std::fs::write(whole, "").expect("a mark");
        }
        python
    })
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its number").port()
}

impl S3 {
    /// A server with one empty bucket, `shop`.
    pub(crate) fn start() -> Self {
        let port = free_port();
        let server = Command::new(python())
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto starts");
        let s3 = Self { server, port };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "the S3 server does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(request(port, "PUT", "/shop", &[], b"").status, 200);
        s3
    }

    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let answer = request(self.port, "GET", &format!("/shop/{key}"), &[], b"");
        match answer.status {
            200 => Some(answer.body),
            404 => None,
            other => panic!("{key}: {other}"),
        }
    }

    pub(crate) fn json(&self, key: &str) -> Option<serde_json::Value> {
        self.get(key).map(|bytes| serde_json::from_slice(&bytes).expect("JSON"))
    }

    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        assert_eq!(request(self.port, "PUT", &format!("/shop/{key}"), &[], bytes).status, 200);
    }

    /// The keys that begin with these letters.
    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let path = format!(
            "/shop?list-type=2&max-keys=1000&prefix={}",
            prefix.replace('/', "%2F").replace('=', "%3D")
        );
        let text = String::from_utf8(request(self.port, "GET", &path, &[], b"").body).expect("XML");
        assert!(text.contains("<IsTruncated>false"), "more than a thousand objects: {prefix}");
        text.split("<Key>")
            .skip(1)
            .map(|rest| rest.split("</Key>").next().expect("a key").to_owned())
            .collect()
    }

    /// Puts every file of a folder below a key.
    pub(crate) fn upload(&self, folder: &Path, key: &str) {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let (path, name) = (entry.path(), entry.file_name().into_string().expect("a name"));
            if path.is_dir() {
                self.upload(&path, &format!("{key}/{name}"));
            } else {
                self.put(&format!("{key}/{name}"), &std::fs::read(&path).expect("a file"));
            }
        }
    }

    /// Copies every object below a key into a folder.
    pub(crate) fn download(&self, key: &str, folder: &Path) {
        for found in self.keys(&format!("{key}/")) {
            let path = folder.join(&found[key.len() + 1..]);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, self.get(&found).expect("it was listed")).expect("a file");
        }
    }

    /// The id of the run that readers load.
    pub(crate) fn current(&self) -> Option<String> {
        self.json("out/CURRENT").map(|current| current["run_id"].as_str().expect("a name").to_owned())
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// What a client of S3 on this port finds in its environment.
pub(crate) fn environment(port: u16) -> BTreeMap<String, String> {
    [
        ("AWS_ACCESS_KEY_ID", "shop"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ALLOW_HTTP", "true"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into_iter()
    .chain([("AWS_ENDPOINT_URL".to_owned(), format!("http://127.0.0.1:{port}"))])
    .collect()
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// One request on a connection of its own.
pub(crate) fn request(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n");
    head += &format!(
        "Content-Length: {}\r\nAuthorization: AWS4-HMAC-SHA256 Credential=shop/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n",
        body.len()
    );
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    let whole = exchange(port, &[head.as_bytes(), b"\r\n", body].concat());
    let end = head_end(&whole).expect("a whole answer");
    let head = String::from_utf8_lossy(&whole[..end]).into_owned();
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    Answer { status, body: whole[end + 4..].to_vec() }
}

fn exchange(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the S3 server");
    stream.write_all(bytes).expect("it listens");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    answer
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n")
}

/// What happens to a request on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The server says that something is wrong with it, and does nothing.
    Status(u16),
    /// The connection breaks before the server has read the request.
    DropRequest,
    /// The server does as asked; the connection breaks in the middle of the answer.
    DropAnswer,
    /// The answer comes in small pieces.
    Slow,
    /// Another writer is faster: it has written the same object before the request arrives.
    Beaten,
}

/// The first line of a request: its method and path.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
}

/// Stands before the server; runs as long as the process that asked for it.
pub(crate) fn proxy(to: u16, fault: impl Fn(&Asked) -> Fault + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its number").port();
    let fault = Arc::new(fault);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let fault = fault.clone();
            std::thread::spawn(move || pass_on(client, to, fault.as_ref()));
        }
    });
    port
}

/// One request, then the connection is closed; a client opens another one.
fn pass_on(mut client: TcpStream, to: u16, fault: &(dyn Fn(&Asked) -> Fault + Send + Sync)) {
    let Some((head, body)) = read_request(&mut client) else { return };
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let fault = fault(&Asked { method, path });
    match fault {
        Fault::DropRequest => return,
        Fault::Status(status) => {
            let _ = write!(
                client,
                "HTTP/1.1 {status} Out Of Order\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            return;
        }
        Fault::Beaten => {
            assert_eq!(request(to, "PUT", path, &[], br#"{"run_id":"theirs","path":"runs/theirs","job":"night","published_at":"2026-11-21T00:00:00Z"}"#).status, 200);
        }
        _ => {}
    }
    let lines = head.split("\r\n").filter(|line| !line.to_lowercase().starts_with("connection:"));
    let head = format!("{}\r\nConnection: close\r\n\r\n", lines.collect::<Vec<_>>().join("\r\n"));
    let answer = exchange(to, &[head.as_bytes(), &body].concat());
    let sent = match fault {
        Fault::DropAnswer => client.write_all(&answer[..answer.len() / 2]),
        Fault::Slow => answer.chunks(16 << 10).try_for_each(|part| {
            std::thread::sleep(Duration::from_millis(30));
            client.write_all(part).and_then(|()| client.flush())
        }),
        _ => client.write_all(&answer),
    };
    // A client that has gone is one that was killed.
    let _ = sent;
}

fn read_request(client: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let (mut bytes, mut part) = (Vec::new(), [0; 64 << 10]);
    let end = loop {
        if let Some(end) = head_end(&bytes) {
            break end;
        }
        match client.read(&mut part) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&part[..n]),
            _ => return None,
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = bytes[end + 4..].to_vec();
    while body.len() < length.unwrap_or(0) {
        match client.read(&mut part) {
            Ok(n) if n > 0 => body.extend_from_slice(&part[..n]),
            _ => return None,
        }
    }
    Some((head, body))
}
