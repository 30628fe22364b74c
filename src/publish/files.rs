//! The few things this room does to a disk, each so that a kill or a power cut leaves it whole.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::lake::disk;

use super::Error;

pub(super) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Error + 'a {
    move |source| Error::Io { action, path: path.to_owned(), source }
}

/// Writes a small JSON file so that it appears whole or not at all, and survives a power cut.
///
/// `writer` is part of the temporary name, so that two jobs publishing into one output at the same
/// moment never write into each other's.
pub(super) fn write_json<T: Serialize>(path: &Path, writer: &str, value: &T) -> Result<(), Error> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|source| Error::Json { path: path.to_owned(), source })?;
    bytes.push(b'\n');
    write_whole(path, writer, &bytes)
}

/// Writes a small file so that it appears whole or not at all, and survives a power cut. `writer` is as of the
/// JSON files: two that write at the same moment have different ones.
///
/// # Errors
/// If the disk refuses; what was there before is there still.
pub fn write_whole(path: &Path, writer: &str, bytes: &[u8]) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.{writer}.partial"));
    let mut file = disk::create(&partial).map_err(io("write", &partial))?;
    file.write_all(bytes).map_err(io("write", &partial))?;
    file.sync_all().map_err(io("write", &partial))?;
    fs::rename(&partial, path).map_err(io("rename", &partial))?;
    sync(parent(path))
}

/// A JSON file's value; `None` where there is no such file.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match fs::read(path) {
        Ok(bytes) => {
            let value = serde_json::from_slice(&bytes);
            value.map(Some).map_err(|source| Error::Json { path: path.to_owned(), source })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io("read", path)(error)),
    }
}

/// Forces a file's bytes, or a folder's entries, to disk.
pub(super) fn sync(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|opened| opened.sync_all()).map_err(io("sync", path))
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn create_folder(path: &Path) -> Result<(), Error> {
    disk::create_folders(path).map_err(io("create", path))
}

/// Removes a file, or a folder with all that is in it, where it is there.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// What a folder holds, sorted by name.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let listed = fs::read_dir(folder).map_err(io("read", folder))?;
    let mut paths: Vec<PathBuf> = listed
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(io("read", folder))?;
    paths.sort();
    Ok(paths)
}

/// A folder's tree, each folder before what is in it: folders (the first is itself), then files.
pub(super) fn tree(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
    let mut at = 0;
    while at < folders.len() {
        for path in entries(&folders[at])? {
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
        at += 1;
    }
    files.sort();
    Ok((folders, files))
}

/// The same tree of files under another folder, on disk when this returns.
pub(super) fn link_tree(from: &Path, to: &Path) -> Result<(), Error> {
    let (folders, files) = tree(from)?;
    let target = |path: &Path| to.join(path.strip_prefix(from).unwrap_or(path));
    for folder in &folders {
        create_folder(&target(folder))?;
    }
    for file in &files {
        link(file, &target(file))?;
    }
    for folder in &folders {
        sync(&target(folder))?;
    }
    sync(parent(to))
}

/// The same file under another name: a hard link, or a copy where the file system has none.
pub(super) fn link(from: &Path, to: &Path) -> Result<(), Error> {
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to).map_err(io("copy to", to))?;
    sync(to)
}
