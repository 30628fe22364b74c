//! People who want to be forgotten, in every run and every cache.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache;
use crate::error::Error;
use crate::job::Job;
use crate::publish;

/// Users without a row that are named.
const NAMED: usize = 10;

/// What became of them.
pub struct Forgotten {
    /// What was found where, for people.
    pub text: String,
    /// Why they may be somewhere all the same.
    pub failed: Option<Error>,
}

/// Takes users out of every run, and out of a Redis where one is given, and says what was found where.
///
/// # Errors
/// If a run of the job is working, the Redis does not answer, a file cannot be read or written, or a row is found
/// afterwards.
pub fn forget(job: &Job, users: &BTreeSet<String>, url: Option<&str>) -> Result<Forgotten, Error> {
    if users.is_empty() {
        return Err(Error::Usage { problem: "expected users to forget; found none".to_owned() });
    }
    publish::current(&job.place, &job.spec.name.0)?;
    if let Some(url) = url {
        cache::check(url)?;
    }
    // Also as the shop writes them: a run may be of before the job had a key.
    let ids: BTreeMap<String, &str> = users
        .iter()
        .flat_map(|user| [user.clone(), job.access.pseudonym(user)].map(|id| (id, user.as_str())))
        .collect();
    let as_stored: BTreeSet<String> = ids.keys().cloned().collect();
    let output = super::locked(job)?;
    let forgotten = output.forget(&as_stored, &job.access.fingerprint())?;
    let without = super::report::again(job)?;
    let found: BTreeSet<&str> = forgotten.seen.iter().filter_map(|id| ids.get(id).copied()).collect();
    let mut text = format!(
        "{} of {} users were found and are forgotten; runs: {}\n\n",
        found.len(),
        users.len(),
        forgotten.runs
    );
    for (table, rows) in &forgotten.rows {
        text += &format!("  {table:<16} {rows:>10} rows removed\n");
    }
    text += &format!("\n  absent from {} files with users, each read to its end\n", forgotten.files_searched);
    for (run_id, error) in without {
        text += &format!("  run {run_id} has no page any more: {error}\n");
    }
    let other_keys = forgotten.of_other_keys;
    let mut failed = (!other_keys.is_empty()).then(|| Error::OtherKeys { runs: other_keys.join(", ") });
    match url.map(|url| cache::forget(&job.spec.name.0, &as_stored, url)) {
        Some(Ok(found)) => text += &format!("  absent from the cache, where {found} lists were theirs\n"),
        Some(Err(error)) => {
            text += "  the cache may still have lists of theirs: forget them once more\n";
            failed = Some(error.into());
        }
        None => {}
    }
    let unknown: Vec<&str> = users.iter().map(String::as_str).filter(|user| !found.contains(user)).collect();
    if !unknown.is_empty() {
        let some = unknown.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        let more = if unknown.len() > NAMED { ", …" } else { "" };
        text += &format!("  {} had no row in any table of a run: {some}{more}\n", unknown.len());
    }
    text += "\nThe inputs are as they were: a night that still finds their events there lists them again.\n";
    Ok(Forgotten { text, failed })
}
