//! Files and folders as this program makes them: for their owner and its group, whatever the umask would allow
//! others. A stricter umask holds.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Result, Write};
use std::path::Path;

/// What a file is opened with; the options say for what.
pub fn options() -> OpenOptions {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    options
}

/// An empty file, in the place of what was there.
///
/// # Errors
/// If the disk refuses.
pub fn create(path: &Path) -> Result<File> {
    options().write(true).create(true).truncate(true).open(path)
}

/// A file with these bytes, in the place of what was there.
///
/// # Errors
/// If the disk refuses.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    create(path)?.write_all(bytes)
}

/// Adds to the end of a file, which is made where missing, with its folders.
///
/// # Errors
/// If the disk refuses.
pub fn append(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        create_folders(folder)?;
    }
    options().append(true).create(true).open(path)?.write_all(text.as_bytes())
}

/// A folder, and those that it is in, where missing.
///
/// # Errors
/// If the disk refuses.
pub fn create_folders(path: &Path) -> Result<()> {
    let mut folders = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut folders, 0o750);
    folders.recursive(true).create(path)
}
