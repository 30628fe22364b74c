//! A model's files, in a folder or fetched from the hub into its cache.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Error;

/// Where a model's files are.
pub(super) struct Folder {
    pub(super) config: PathBuf,
    pub(super) tokenizer: PathBuf,
    pub(super) weights: PathBuf,
    /// Sentence-transformers' pooling, where the model has it.
    pub(super) pooling: Option<PathBuf>,
}

impl Folder {
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.config, &self.tokenizer, &self.weights].into_iter().chain(&self.pooling).map(PathBuf::as_path)
    }
}

/// What every model has.
pub const NEEDED: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];
/// What says how sentence-transformers' models pool.
pub const POOLING: &str = "1_Pooling/config.json";

pub(super) fn open(model: &str) -> Result<Folder, Error> {
    let folder = Path::new(model);
    // A name with a path's beginning, or more than one `/`, cannot be a hub name.
    let hub_name = !model.starts_with(['.', '/']) && model.matches('/').count() == 1;
    if !folder.is_dir() && hub_name {
        return fetch(model);
    }
    let file = |name: &'static str| {
        let path = folder.join(name);
        if path.is_file() {
            Ok(path)
        } else {
            Err(Error::MissingFile { folder: folder.to_owned(), file: name })
        }
    };
    Ok(Folder {
        config: file(NEEDED[0])?,
        tokenizer: file(NEEDED[1])?,
        weights: file(NEEDED[2])?,
        pooling: file(POOLING).ok(),
    })
}

fn fetch(model: &str) -> Result<Folder, Error> {
    let failed = |file| move |source| Error::Hub { model: model.to_owned(), file, source: Box::new(source) };
    let api = hf_hub::api::sync::Api::new().map_err(failed(NEEDED[0]))?.model(model.to_owned());
    let file = |name: &'static str| api.get(name).map_err(failed(name));
    Ok(Folder {
        config: file(NEEDED[0])?,
        tokenizer: file(NEEDED[1])?,
        weights: file(NEEDED[2])?,
        pooling: api.get(POOLING).ok(),
    })
}

/// Reads a JSON file of the model.
pub(super) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path, expected: &str) -> Result<T, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Model {
        path: path.to_owned(),
        expected: expected.to_owned(),
        found: error.to_string(),
    })
}
