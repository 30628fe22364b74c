//! The connection: one Redis or a cluster, with retries of what may be said twice.

use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterConnection, ClusterPipeline};
use redis::{Client, Cmd, Connection, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError, Value, cmd};

use super::Error;

/// How often a command is tried; every command here may be said twice.
const TRIES: u32 = 4;
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);
/// Keys looked at by one step of a scan.
const SCANNED: usize = 1_000;

pub(super) struct Link {
    client: Kind<Client, ClusterClient>,
    connection: Option<Kind<Connection, ClusterConnection>>,
    address: String,
}

/// Of one server, or of a cluster.
enum Kind<One, Many> {
    One(One),
    Many(Many),
}

impl Link {
    /// Connects, and asks the Redis to answer.
    pub(super) fn open(url: &str) -> Result<Self, Error> {
        let (url, is_cluster) = match url.split_once("+cluster://") {
            Some((scheme, rest)) => (format!("{scheme}://{rest}"), true),
            None => (url.to_owned(), false),
        };
        let info = url.as_str().into_connection_info().map_err(Error::Url)?;
        let address = info.addr().to_string();
        let client = if is_cluster {
            let builder = ClusterClient::builder([info]).connection_timeout(CONNECT).response_timeout(ANSWER);
            Kind::Many(builder.build().map_err(Error::Url)?)
        } else {
            Kind::One(Client::open(info).map_err(Error::Url)?)
        };
        let mut link = Self { client, connection: None, address };
        link.ask::<Value>("connect", &cmd("PING"))?;
        Ok(link)
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.client, Kind::Many(_))
    }

    pub(super) fn get(&mut self, key: &str) -> Result<Option<String>, Error> {
        self.ask("read", cmd("GET").arg(key))
    }

    pub(super) fn put(&mut self, key: &str, value: &str) -> Result<(), Error> {
        self.ask("write", cmd("SET").arg(key).arg(value))
    }

    pub(super) fn delete(&mut self, key: &str) -> Result<(), Error> {
        self.ask("remove", cmd("UNLINK").arg(key))
    }

    pub(super) fn field(&mut self, key: &str, field: &str) -> Result<Option<String>, Error> {
        self.ask("read", cmd("HGET").arg(key).arg(field))
    }

    /// Sets a field of a hash, and when the hash goes.
    pub(super) fn note(
        &mut self,
        key: &str,
        field: &str,
        value: &str,
        ttl: Option<u64>,
    ) -> Result<(), Error> {
        self.ask::<Value>("write", cmd("HSET").arg(key).arg(field).arg(value))?;
        match ttl {
            Some(seconds) => self.ask("write", cmd("EXPIRE").arg(key).arg(seconds)),
            None => Ok(()),
        }
    }

    pub(super) fn add(&mut self, set: &str, member: &str) -> Result<(), Error> {
        self.ask("write", cmd("SADD").arg(set).arg(member))
    }

    pub(super) fn forget(&mut self, set: &str, member: &str) -> Result<(), Error> {
        self.ask("write", cmd("SREM").arg(set).arg(member))
    }

    pub(super) fn members(&mut self, set: &str) -> Result<Vec<String>, Error> {
        self.ask("read", cmd("SMEMBERS").arg(set))
    }

    pub(super) fn set(&mut self, lists: &[(String, Vec<u8>)], ttl: Option<u64>) -> Result<(), Error> {
        let commands = lists.iter().map(|(key, value)| {
            let mut set = cmd("SET");
            set.arg(key).arg(&value[..]);
            if let Some(seconds) = ttl {
                set.arg("EX").arg(seconds);
            }
            set
        });
        self.ask_all::<Value>("write lists", commands.collect())?;
        Ok(())
    }

    /// How many of the keys are there; they go so many seconds from now on, or stay.
    pub(super) fn renew(&mut self, keys: &[String], ttl: Option<u64>) -> Result<u64, Error> {
        let Some(seconds) = ttl else {
            let persist = keys.iter().map(|key| cmd("PERSIST").arg(key).to_owned());
            self.ask_all::<Value>("keep lists", persist.collect())?;
            return self.count(keys);
        };
        let commands = keys.iter().map(|key| cmd("EXPIRE").arg(key).arg(seconds).to_owned());
        Ok(self.ask_all::<u64>("renew lists", commands.collect())?.into_iter().sum())
    }

    /// How many of the keys are there.
    pub(super) fn count(&mut self, keys: &[String]) -> Result<u64, Error> {
        let commands = keys.iter().map(|key| cmd("EXISTS").arg(key).to_owned());
        let found: Vec<u64> = self.ask_all("count lists", commands.collect())?;
        Ok(found.into_iter().sum())
    }

    /// Removes every key of one server that a pattern fits.
    pub(super) fn remove_all(&mut self, pattern: &str) -> Result<(), Error> {
        let mut cursor = 0_u64;
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCANNED);
            let (next, keys): (u64, Vec<Vec<u8>>) = self.ask("look for old lists", &scan)?;
            if !keys.is_empty() {
                self.ask::<Value>("remove old lists", cmd("UNLINK").arg(keys))?;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    fn ask<T: FromRedisValue>(&mut self, action: &'static str, command: &Cmd) -> Result<T, Error> {
        self.again(action, |connection| match connection {
            Kind::One(connection) => command.query(connection),
            Kind::Many(connection) => command.query(connection),
        })
    }

    fn ask_all<T: FromRedisValue>(
        &mut self,
        action: &'static str,
        commands: Vec<Cmd>,
    ) -> Result<Vec<T>, Error> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        self.again(action, |connection| match connection {
            Kind::One(connection) => {
                let mut pipeline = Pipeline::with_capacity(commands.len());
                commands.iter().for_each(|command| {
                    pipeline.add_command(command.clone());
                });
                pipeline.query(connection)
            }
            Kind::Many(connection) => {
                let mut pipeline = ClusterPipeline::with_capacity(commands.len());
                commands.iter().for_each(|command| {
                    pipeline.add_command(command.clone());
                });
                pipeline.query(connection)
            }
        })
    }

    /// Does something over the connection; where that breaks, over new ones, each after a longer pause.
    fn again<T>(
        &mut self,
        action: &'static str,
        work: impl Fn(&mut Kind<Connection, ClusterConnection>) -> Result<T, RedisError>,
    ) -> Result<T, Error> {
        let mut tries = 1;
        loop {
            let result = match &mut self.connection {
                Some(connection) => work(connection),
                None => match self.connect() {
                    Ok(connection) => work(self.connection.insert(connection)),
                    Err(source) => Err(source),
                },
            };
            let source = match result {
                Ok(value) => return Ok(value),
                Err(source) => source,
            };
            let broken = source.is_io_error() || source.is_connection_dropped() || source.is_timeout();
            if !broken || tries == TRIES {
                return Err(Error::Redis { address: self.address.clone(), action, source });
            }
            self.connection = None;
            std::thread::sleep(Duration::from_millis(100) * 3_u32.pow(tries));
            tries += 1;
        }
    }

    fn connect(&self) -> Result<Kind<Connection, ClusterConnection>, RedisError> {
        Ok(match &self.client {
            Kind::One(client) => {
                let connection = client.get_connection_with_timeout(CONNECT)?;
                connection.set_read_timeout(Some(ANSWER))?;
                connection.set_write_timeout(Some(ANSWER))?;
                Kind::One(connection)
            }
            Kind::Many(client) => {
                let mut connection = client.get_connection()?;
                connection.check_connection();
                Kind::Many(connection)
            }
        })
    }
}
