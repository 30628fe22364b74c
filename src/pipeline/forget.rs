//! People who want to be forgotten, in every run and every cache.

use std::collections::BTreeSet;

use crate::cache;
use crate::error::Error;
use crate::job::Job;
use crate::publish;

/// Takes users out of every run, and out of a Redis where one is given, and says what was found where.
///
/// # Errors
/// If a run of the job is working, a file cannot be read or written, or a row is found afterwards.
pub fn forget(job: &Job, users: &BTreeSet<String>, url: Option<&str>) -> Result<String, Error> {
    if users.is_empty() {
        return Err(Error::Usage { problem: "expected users to forget; found none".to_owned() });
    }
    publish::current(&job.place, &job.spec.name.0)?;
    let users = &users.iter().map(|user| job.access.pseudonym(user)).collect();
    let output = super::locked(job)?;
    let forgotten = output.forget(users)?;
    let without = super::report::again(job)?;
    let mut text = format!("{} users forgotten in {} runs\n\n", users.len(), forgotten.runs);
    for (table, rows) in &forgotten.rows {
        text += &format!("  {table:<16} {rows:>10} rows removed\n");
    }
    text += &format!("\n  absent from {} files with users, each read to its end\n", forgotten.files_searched);
    for (run_id, error) in without {
        text += &format!("  run {run_id} has no page any more: {error}\n");
    }
    if let Some(url) = url {
        let found = cache::forget(&job.spec.name.0, users, url)?;
        text += &format!("  absent from the cache, where {found} lists were theirs\n");
    }
    Ok(text + "\nThe inputs are as they were: a night that still finds their events there lists them again.\n")
}
