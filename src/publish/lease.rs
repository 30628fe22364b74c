//! The lock of a job whose output is in a store: an object that says who works, and until when at least.
//!
//! It is written only where it is still the version that was read. Whoever holds it writes it anew every quarter of
//! its term, in a thread of its own. Whoever wants it watches: one that is written anew has a holder that lives, one
//! that stays as it is for its whole term has none, nor has one that says that it was let go. So nothing hangs on
//! machines' clocks being right. A process that has the same mirror need not watch: that folder's own lock says that
//! the holder is gone.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::lake::store::{self, Store, Version};

use super::Error;

/// How often a lock is looked at that somebody may hold.
const WATCH: Duration = Duration::from_millis(500);

/// What the object says.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    holder: String,
    /// The folder that it works in.
    mirror: String,
    term_s: u32,
    /// By the holder's clock; [`LET_GO`] once it has ended.
    until: DateTime<Utc>,
}

const LET_GO: DateTime<Utc> = DateTime::UNIX_EPOCH;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    held: Arc<Held>,
    /// Dropped, it ends the thread.
    stop: Option<Sender<()>>,
    renewing: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Held {
    store: Store,
    key: String,
    holder: String,
    mirror: String,
    term_s: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    version: Version,
    until: DateTime<Utc>,
    lost: bool,
}

impl Lease {
    /// Takes the lock. Where somebody else may hold it, that takes up to its term to find out.
    ///
    /// # Errors
    /// [`Error::Locked`] where somebody else holds it, or was faster.
    pub(super) fn take(
        store: &Store,
        key: &str,
        holder: &str,
        mirror: &str,
        term_s: u32,
    ) -> Result<Self, Error> {
        let locked = |holder: String| Error::Locked { path: PathBuf::from(store.location(key)), holder };
        let mut before = store.read(key)?;
        let watched = Instant::now();
        while let Some((found, _)) = &before {
            // What nobody can read holds nobody back.
            let Ok(record) = serde_json::from_slice::<Record>(found) else { break };
            let term = Duration::from_secs(u64::from(record.term_s));
            if record.mirror == mirror || record.until == LET_GO || watched.elapsed() > term {
                break;
            }
            std::thread::sleep(WATCH);
            let now = store.read(key)?;
            if now.as_ref().is_none_or(|(now, _)| now != found) {
                return Err(locked(record.holder));
            }
        }
        let before = before.take().map(|(_, version)| version);
        let term = TimeDelta::seconds(i64::from(term_s));
        let until = Utc::now() + term;
        let record = Record { holder: holder.to_owned(), mirror: mirror.to_owned(), term_s, until };
        let version = match store.replace(key, &bytes(&record, store, key)?, before.as_ref()) {
            Ok(version) => version,
            Err(store::Error::Lost { .. }) => {
                return Err(locked("it was faster by a moment".to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        let held = Arc::new(Held {
            store: store.clone(),
            key: key.to_owned(),
            holder: holder.to_owned(),
            mirror: mirror.to_owned(),
            term_s,
            state: Mutex::new(State { version, until, lost: false }),
        });
        let (stop, stopped) = channel();
        let renewer = held.clone();
        let pause = Duration::from_secs(u64::from(term_s)) / 4;
        let renewing = std::thread::spawn(move || renewer.renew_until(&stopped, pause));
        Ok(Self { held, stop: Some(stop), renewing: Some(renewing) })
    }

    /// Makes sure that the lock is held for another term.
    ///
    /// # Errors
    /// [`Error::LockLost`] where it is not.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.held.renew(self.held.next())
    }
}

impl Held {
    fn renew_until(&self, stopped: &Receiver<()>, pause: Duration) {
        while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            // A store that is away for a moment is asked again; one that stays away costs the lock.
            let _ = self.renew(self.next());
        }
    }

    fn next(&self) -> DateTime<Utc> {
        Utc::now() + TimeDelta::seconds(i64::from(self.term_s))
    }

    fn renew(&self, until: DateTime<Utc>) -> Result<(), Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = || Error::LockLost { path: PathBuf::from(self.store.location(&self.key)) };
        if state.lost {
            return Err(lost());
        }
        let (holder, mirror, term_s) = (self.holder.clone(), self.mirror.clone(), self.term_s);
        let record = Record { holder, mirror, term_s, until };
        match self.store.replace(&self.key, &bytes(&record, &self.store, &self.key)?, Some(&state.version)) {
            Ok(version) => {
                (state.version, state.until) = (version, until);
                Ok(())
            }
            Err(store::Error::Lost { .. }) => {
                state.lost = true;
                Err(lost())
            }
            // Nobody can have taken it before its term.
            Err(_) if Utc::now() < state.until => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(renewing) = self.renewing.take() {
            let _ = renewing.join();
        }
        // A lock that cannot be let go runs out.
        let _ = self.held.renew(LET_GO);
    }
}

fn bytes(record: &Record, store: &Store, key: &str) -> Result<Vec<u8>, Error> {
    let path = || PathBuf::from(store.location(key));
    serde_json::to_vec_pretty(record).map_err(|source| Error::Json { path: path(), source })
}
