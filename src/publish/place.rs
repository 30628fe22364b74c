//! Where runs are: a folder, or a store that a folder mirrors.
//!
//! Stages work in a folder whatever the output is. Of an output in a store, that folder is a mirror: what a run
//! makes is sent as it is completed, and what an earlier run made is fetched when it is asked for. The store's
//! own listing says which runs there are and which are complete; what else lies in the mirror is work that was
//! never sent, or nothing that counts. A file is the object of its key where the store's version of it is the one
//! that it was fetched from or sent as, and it has not been written since.
//!
//! Everything is sent before the `stage.json` or `manifest.json` that says that it is whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::lake::store::{Object, Store, Version, modified_ns};

use super::files::{create_folder, io, read_json, remove, tree, write_json};
use super::{Current, Error};

/// Where a job's runs are. Clones are of the same place.
#[derive(Clone, Debug)]
pub struct Place {
    root: PathBuf,
    mirror: Option<Arc<Mirror>>,
}

#[derive(Debug)]
struct Mirror {
    store: Store,
    known: Mutex<Known>,
}

/// What is known of the store and of the mirror's files.
#[derive(Debug, Default)]
struct Known {
    /// The store's objects below `runs/` and `tuning/`, by key.
    objects: BTreeMap<String, Object>,
    /// What the mirror's files were fetched from or sent as, by key.
    files: BTreeMap<String, Mirrored>,
    current: Option<(Current, Version)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Mirrored {
    etag: String,
    size: u64,
    modified_ns: u128,
}

/// Which objects the mirror's files are.
const FILES: &str = ".mirror.json";
/// What says that a folder is whole.
const MARKS: [&str; 2] = ["stage.json", "manifest.json"];

impl Place {
    /// A folder.
    pub fn folder(root: &Path) -> Self {
        Self { root: root.to_owned(), mirror: None }
    }

    /// A store, and the folder that mirrors it. Lists the store, and fetches the manifests of its runs.
    ///
    /// # Errors
    /// If the store or the disk refuses.
    pub fn store(store: Store, root: &Path) -> Result<Self, Error> {
        create_folder(root)?;
        let files = read_json(&root.join(FILES))?.unwrap_or_default();
        let known = Mutex::new(Known { files, ..Known::default() });
        let place = Self { root: root.to_owned(), mirror: Some(Arc::new(Mirror { store, known })) };
        place.refresh()?;
        Ok(place)
    }

    /// The folder that stages work in and tables are read from.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn opened_store(&self) -> Option<&Store> {
        self.mirror.as_ref().map(|mirror| &mirror.store)
    }

    /// How people name what is at a path below the root: a store's by its URL.
    pub fn shown(&self, path: &Path) -> PathBuf {
        match &self.mirror {
            Some(mirror) => PathBuf::from(mirror.store.location(&self.key(path))),
            None => path.to_owned(),
        }
    }

    /// Looks again at what there is.
    ///
    /// # Errors
    /// If the store or the disk refuses.
    pub fn refresh(&self) -> Result<(), Error> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        // Before the listing, so that the run it names is in that, unless it has been retired since.
        let current = match mirror.store.read("CURRENT")? {
            Some((bytes, version)) => {
                let path = PathBuf::from(mirror.store.location("CURRENT"));
                let current =
                    serde_json::from_slice(&bytes).map_err(|source| Error::Json { path, source })?;
                Some((current, version))
            }
            None => None,
        };
        let mut objects = mirror.store.list("runs")?;
        objects.extend(mirror.store.list("tuning")?);
        {
            let mut known = mirror.known();
            known.objects = objects.into_iter().map(|object| (object.key.clone(), object)).collect();
            known.current = current;
        }
        self.fetch_where(&|key| {
            let depth = key.matches('/').count();
            depth == 2 && key.ends_with("/manifest.json")
        })
    }

    pub(super) fn current(&self) -> Result<Option<Current>, Error> {
        match &self.mirror {
            Some(mirror) => Ok(mirror.known().current.as_ref().map(|(current, _)| current.clone())),
            None => read_json(&self.root.join("CURRENT")),
        }
    }

    /// Makes readers load another run, in one step.
    pub(super) fn set_current(&self, current: &Current) -> Result<(), Error> {
        let Some(mirror) = &self.mirror else {
            return write_json(&self.root.join("CURRENT"), &current.job, current);
        };
        let path = PathBuf::from(mirror.store.location("CURRENT"));
        let bytes = serde_json::to_vec_pretty(current).map_err(|source| Error::Json { path, source })?;
        let before = mirror.known().current.as_ref().map(|(_, version)| version.clone());
        let version = mirror.store.replace("CURRENT", &bytes, before.as_ref())?;
        mirror.known().current = Some((current.clone(), version));
        Ok(())
    }

    /// The names in `runs/`, and of each whether it has a manifest and whether it has a pin.
    pub(super) fn run_names(&self, pin: &str) -> Option<Vec<(String, bool, bool)>> {
        let mirror = self.mirror.as_ref()?;
        let known = mirror.known();
        let mut names: Vec<&str> =
            known.objects.keys().filter_map(|key| key.strip_prefix("runs/")?.split('/').next()).collect();
        names.dedup();
        let has = |name: &str, file: &str| known.objects.contains_key(&format!("runs/{name}/{file}"));
        Some(
            names
                .into_iter()
                .map(|name| (name.to_owned(), has(name, "manifest.json"), has(name, pin)))
                .collect(),
        )
    }

    /// Bytes and files of a table, as the store lists them; nothing for a folder, which can be looked into.
    pub(super) fn listed_size(&self, table: &Path) -> Option<(u64, u64)> {
        let mirror = self.mirror.as_ref()?;
        let below = format!("{}/", self.key(table));
        let known = mirror.known();
        let objects = known.objects.values().filter(|object| object.key.starts_with(&below));
        let parquet = objects.filter(|object| object.key.ends_with(".parquet"));
        Some(parquet.fold((0, 0), |(bytes, files), object| (bytes + object.size, files + 1)))
    }

    /// Whether the store has this very file; never of a folder.
    pub(super) fn has(&self, path: &Path) -> bool {
        let key = self.key(path);
        self.mirror.as_ref().is_some_and(|mirror| mirror.known().objects.contains_key(&key))
    }

    /// Whether what is on this side counts: not where the store had it once and has it no more, as after
    /// somebody was forgotten from another machine.
    pub(super) fn counts(&self, path: &Path) -> bool {
        let key = self.key(path);
        self.mirror.as_ref().is_none_or(|mirror| {
            let known = mirror.known();
            known.objects.contains_key(&key) || !known.files.contains_key(&key)
        })
    }

    /// Sees to it that a file, or all that is in a folder, is on this side as the store has it.
    ///
    /// # Errors
    /// If the store or the disk refuses.
    pub fn fetch(&self, path: &Path) -> Result<(), Error> {
        let key = self.key(path);
        self.fetch_where(&|found| is_below(found, &key))
    }

    fn fetch_where(&self, wanted: &dyn Fn(&str) -> bool) -> Result<(), Error> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        let missing: Vec<Object> = {
            let known = mirror.known();
            let objects = known.objects.values().filter(|object| wanted(&object.key));
            objects.filter(|object| !known.is_mirrored(&self.root, object)).cloned().collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        let files: Vec<(String, PathBuf)> =
            missing.iter().map(|object| (object.key.clone(), self.root.join(&object.key))).collect();
        mirror.store.fetch(&files)?;
        self.remember(mirror, &missing)
    }

    /// Sends what is in a folder, or a file, where the store does not have it; marks of wholeness come last.
    ///
    /// # Errors
    /// If the store or the disk refuses; what was sent before stays.
    pub fn send(&self, path: &Path) -> Result<(), Error> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        let files = if path.is_dir() { tree(path)?.1 } else { vec![path.to_owned()] };
        let is_hidden = |key: &str| key.split('/').any(|part| part.starts_with('.'));
        let new: Vec<(PathBuf, String)> = {
            let known = mirror.known();
            let keys = files.into_iter().map(|file| (file.clone(), self.key(&file)));
            keys.filter(|(_, key)| {
                let sent = known.objects.get(key);
                !is_hidden(key) && !sent.is_some_and(|object| known.is_mirrored(&self.root, object))
            })
            .collect()
        };
        let (mut marks, rest): (Vec<_>, Vec<_>) = new.into_iter().partition(|(path, _)| is_mark(path));
        // A run's own mark is the one that is the least deep, and the last.
        marks.sort_by_key(|(_, key)| std::cmp::Reverse(key.matches('/').count()));
        for batch in rest.chunks(rest.len().max(1)).chain(marks.chunks(1)) {
            let sent = mirror.store.send(batch)?;
            self.remember(mirror, &sent)?;
        }
        Ok(())
    }

    /// Removes a file, or a folder with all that is in it, here and there; what says that it is whole goes first.
    ///
    /// # Errors
    /// If the store or the disk refuses.
    pub(super) fn remove(&self, path: &Path) -> Result<(), Error> {
        let key = self.key(path);
        self.remove_where(&|found| is_below(found, &key))?;
        remove(path)
    }

    /// Removes from the store what is no longer in a folder of the mirror.
    pub(super) fn prune(&self, folder: &Path) -> Result<(), Error> {
        let key = self.key(folder);
        self.remove_where(&|found| is_below(found, &key) && !self.root.join(found).exists())
    }

    fn remove_where(&self, unwanted: &dyn Fn(&str) -> bool) -> Result<(), Error> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        let keys: Vec<String> = mirror.known().objects.keys().filter(|key| unwanted(key)).cloned().collect();
        let (mut marks, rest): (Vec<String>, Vec<String>) =
            keys.into_iter().partition(|key| is_mark(Path::new(key)));
        marks.sort_by_key(|key| key.matches('/').count());
        for mark in &marks {
            mirror.store.remove(std::slice::from_ref(mark))?;
        }
        mirror.store.remove(&rest)?;
        let mut known = mirror.known();
        for key in marks.iter().chain(&rest) {
            known.objects.remove(key);
            known.files.remove(key);
        }
        Ok(())
    }

    /// Removes what the mirror has of runs that the store does not have, but for one.
    pub(super) fn forget_others(&self, run_id: &str) -> Result<(), Error> {
        let Some(names) = self.run_names("") else { return Ok(()) };
        for path in super::files::entries(&self.root.join("runs"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name != run_id && names.iter().all(|(known, ..)| *known != name) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn remember(&self, mirror: &Mirror, objects: &[Object]) -> Result<(), Error> {
        let mut known = mirror.known();
        for object in objects {
            let path = self.root.join(&object.key);
            let facts = std::fs::metadata(&path).map_err(io("read", &path))?;
            let mirrored =
                Mirrored { etag: object.etag.clone(), size: facts.len(), modified_ns: modified_ns(&facts) };
            known.files.insert(object.key.clone(), mirrored);
            known.objects.insert(object.key.clone(), object.clone());
        }
        let writer = std::process::id().to_string();
        write_json(&self.root.join(FILES), &writer, &known.files)
    }

    /// The key of what is at a path below the root.
    fn key(&self, path: &Path) -> String {
        let below = path.strip_prefix(&self.root).unwrap_or(path);
        let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
        parts.join("/")
    }
}

impl Mirror {
    fn known(&self) -> MutexGuard<'_, Known> {
        // What a thread that panicked has left is a map like any other.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is_mirrored(&self, root: &Path, object: &Object) -> bool {
        let Some(file) = self.files.get(&object.key).filter(|file| file.etag == object.etag) else {
            return false;
        };
        let facts = std::fs::metadata(root.join(&object.key));
        facts.is_ok_and(|facts| facts.len() == file.size && modified_ns(&facts) == file.modified_ns)
    }
}

fn is_below(key: &str, folder: &str) -> bool {
    folder.is_empty() || key.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_mark(path: &Path) -> bool {
    path.file_name().is_some_and(|name| MARKS.iter().any(|mark| name == *mark))
}
