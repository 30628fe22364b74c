//! A real Redis on a free port of this machine, stopped when it is dropped.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::FromRedisValue;

pub(crate) struct Redis {
    server: Child,
    pub(crate) port: u16,
    folder: tempfile::TempDir,
}

impl Redis {
    pub(crate) fn start(more: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its number").port();
        drop(listener);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let plain = if more.contains(&"--tls-port") { "0".to_owned() } else { port.to_string() };
        let server = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path())
            .args(["--port", &plain])
            .args(more.iter().map(|arg| arg.replace("PORT", &port.to_string())))
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is there: apt-get install redis-server");
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "the Redis does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { server, port, folder }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    #[track_caller]
    pub(crate) fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let mut asked = redis::cmd(command[0]);
        command[1..].iter().for_each(|arg| {
            asked.arg(*arg);
        });
        let client = redis::Client::open(self.url()).expect("a URL");
        asked.query(&mut client.get_connection().expect("a connection")).expect("an answer")
    }

    /// Keys that begin with these letters.
    #[track_caller]
    pub(crate) fn keys(&self, prefix: &str) -> usize {
        self.ask::<Vec<Vec<u8>>>(&["KEYS", &format!("{prefix}*")]).len()
    }

    /// Stops it as an operator's mistake would.
    pub(crate) fn kill(&mut self) {
        self.server.kill().expect("it can be killed");
        self.server.wait().expect("it has ended");
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
