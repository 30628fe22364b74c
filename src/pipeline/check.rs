//! Everything that can be wrong before any work: inputs, columns, types, model, device.

use arrow::datatypes::DataType;

use crate::encoder::Kind;
use crate::error::Error;
use crate::job::Job;
use crate::lake::input::{self, Input};
use crate::lake::store::{Store, is_url, scheme_of_no_url};
use crate::lake::{self, Lake};
use crate::{behavior, catalog, encoder};

/// Statements are planned over no row: hardly any memory.
const PLANNING_BYTES: usize = 16 << 20;

/// A job's inputs, found and checked.
pub(super) struct Inputs {
    pub(super) events: Input,
    pub(super) items: Option<Input>,
    pub(super) users: Option<Input>,
    /// What users turned to after the events, to compare lists with.
    pub(super) test: Option<Input>,
    /// The same, to learn weights from.
    pub(super) valid: Option<Input>,
    /// What texts are embedded with, its model on this machine.
    pub(super) encoder: Option<encoder::Config>,
}

impl Inputs {
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, &Input)> {
        let optional = [
            ("items", self.items.as_ref()),
            ("users", self.users.as_ref()),
            ("test", self.test.as_ref()),
            ("valid", self.valid.as_ref()),
        ];
        std::iter::once(("events", Some(&self.events)))
            .chain(optional)
            .filter_map(|(name, input)| input.map(|input| (name, input)))
    }

    /// The given tables of what users turned to.
    pub(super) fn given(&self) -> impl Iterator<Item = (&'static str, &Input)> {
        self.all().filter(|(name, _)| ["test", "valid"].contains(name))
    }
}

impl Inputs {
    /// What a failed statement stumbled over: an input file that cannot be read to its end, where
    /// there is one, else the failure itself.
    pub(super) fn blamed_for(&self, error: Error) -> Error {
        if !error.is_failed_statement() {
            return error;
        }
        let damaged = self
            .all()
            .find_map(|(input, files)| files.verify().err().map(|source| Error::Input { input, source }));
        damaged.unwrap_or(error)
    }
}

/// Finds the inputs and checks their footers, the model folder and the device.
pub(super) fn inputs(job: &Job) -> Result<Inputs, Error> {
    let spec = &job.spec;
    let refused = |input| move |source| Error::Input { input, source };
    let events = input::discover(&spec.inputs.events, &behavior::event_contract(), &job.access)
        .map_err(refused("events"))?;
    let items = spec.inputs.items.as_ref().map(|config| {
        let contract = catalog::item_contract(config.text.as_deref());
        input::discover(config, &contract, &job.access).map_err(refused("items"))
    });
    let items = items.transpose()?;
    let users = spec.inputs.users.as_ref();
    let users = users.map(|config| {
        input::discover(config, &behavior::user_contract(), &job.access).map_err(refused("users"))
    });
    let users = users.transpose()?;
    let given = |path: &Option<String>, name| {
        let found = path
            .as_deref()
            .map(|path| input::discover(&input::Config::of(path), &behavior::given_contract(), &job.access));
        found.transpose().map_err(refused(name))
    };
    let (test, valid) = (given(&spec.evaluation.test, "test")?, given(&spec.evaluation.valid, "valid")?);
    for (column, input, other) in [
        ("item_id", "items", &items),
        ("user_id", "users", &users),
        ("user_id", "test", &test),
        ("item_id", "test", &test),
        ("user_id", "valid", &valid),
        ("item_id", "valid", &valid),
    ] {
        let Some(other) = other else { continue };
        let (expected, found) = (&events.id_types[column], &other.id_types[column]);
        if expected.is_integer() != found.is_integer() {
            let (events, found) = (expected.to_string(), found.to_string());
            return Err(Error::IdTypes { column, input, events, found });
        }
    }
    // Lists of users of both tables are one table, and no integer type has room for the ids of these two.
    if let Some(users) = users.as_ref().filter(|_| spec.ranking.include_cold) {
        let (expected, found) = (&events.id_types["user_id"], &users.id_types["user_id"]);
        if (*expected == DataType::UInt64) != (*found == DataType::UInt64) {
            let (events, found) = (expected.to_string(), found.to_string());
            return Err(Error::IdTypes { column: "user_id", input: "users", events, found });
        }
    }
    let output = spec.output.to_string_lossy();
    if let Some(scheme) = scheme_of_no_url(&output) {
        let problem =
            format!("output: expected a folder, or a URL as {scheme}://bucket/folder; found `{output}`");
        return Err(Error::Usage { problem });
    }
    if let Some(found) = spec.inputs.events.constant.get("event_type").filter(|of| !spec.behavior.knows(of)) {
        let problem = format!(
            "inputs.events.constant.event_type: expected view, click, cart, purchase, search or one of behavior.event_types; found `{found}`"
        );
        return Err(Error::Usage { problem });
    }
    let longest = spec.ranking.top_k.get();
    if let Some(pin) = spec.catalog.pins.iter().find(|pin| usize::from(pin.rank.get()) > longest) {
        let problem =
            format!("catalog.pins: expected ranks from 1 to ranking.top_k = {longest}; found {}", pin.rank);
        return Err(Error::Usage { problem });
    }
    spec.linear.check()?;
    spec.repeat.check()?;
    spec.ranking.check()?;
    let lake = Lake::open(&lake::Config { threads: 1, memory_bytes: PLANNING_BYTES, spill_dir: None })?;
    if let Some(items) = &items {
        let text = spec.inputs.items.as_ref().and_then(|items| items.text.as_deref());
        catalog::check(&lake, items, text, &spec.catalog).map_err(Error::Catalog)?;
    }
    if let Some(column) = &spec.privacy.consent {
        let known = match &users {
            Some(users) => {
                lake.register_input("user_attributes", users, &behavior::user_contract())?;
                lake.columns("user_attributes")?
            }
            None => Vec::new(),
        };
        if !known.contains(column) {
            let problem = format!(
                "privacy.consent: expected a column of [inputs.users] ({}); found `{column}`",
                if known.is_empty() { "the job has none".to_owned() } else { known.join(", ") }
            );
            return Err(Error::Usage { problem });
        }
    }
    super::attributes::check(&lake, items.as_ref(), users.as_ref(), spec)?;
    spec.behavior.check_statements(&lake).map_err(Error::Behavior)?;
    let encoder = spec.embeds().then(|| local(job, &spec.encoder)).transpose()?;
    if let Some(encoder) = &encoder {
        encoder.check().map_err(Error::Model)?;
    }
    Ok(Inputs { events, items, users, test, valid, encoder })
}

/// The encoder with its model on this machine: one in a store is fetched where it has changed.
fn local(job: &Job, encoder: &encoder::Config) -> Result<encoder::Config, Error> {
    if encoder.kind == Kind::Words || !is_url(&encoder.model) {
        return Ok(encoder.clone());
    }
    let folder = Store::open(&encoder.model, &job.access)
        .and_then(|store| store.mirror(&encoder::NEEDED, &[encoder::POOLING], &job.work().join("models")))
        .map_err(Error::ModelStore)?;
    Ok(encoder::Config { model: folder.to_string_lossy().into_owned(), ..encoder.clone() })
}

/// What `lamplighter check` prints when nothing is wrong.
///
/// # Errors
/// Whatever is wrong with the job's inputs, model or device.
pub fn check(job: &Job) -> Result<String, Error> {
    let inputs = inputs(job)?;
    let mut text = format!("{}: ok\n", job.path.display());
    for (name, input) in inputs.all() {
        let bytes: u64 = input.files.iter().map(|file| file.size).sum();
        text += &format!(
            "  {name:<8} {} file(s), {} rows, {:.1} MiB; columns {}\n",
            input.files.len(),
            input.rows(),
            bytes as f64 / 1_048_576.0,
            input.present.join(", ")
        );
    }
    let encoder = &job.spec.encoder;
    let of_texts = match encoder.kind {
        Kind::Transformer => encoder.model.clone(),
        Kind::Static => format!("{}, static", encoder.model),
        Kind::Words => "none: texts are alike by their words".to_owned(),
    };
    match &inputs.items {
        Some(_) if job.spec.embeds() => text += &format!("  encoder  {of_texts}\n"),
        Some(_) => text += "  encoder  off: inputs.items.text is empty\n",
        None => text += "  encoder  off: there is no [inputs.items] to take texts from\n",
    }
    Ok(text)
}
