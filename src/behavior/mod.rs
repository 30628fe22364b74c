//! Events → implicit feedback, by the SQL statements under `sql/behavior/`.
//!
//! In: the shop's events and, where there is one, its catalogue. Out, as Parquet files in one
//! folder: `item_ids`, `user_ids`, `query_ids` (external id ↔ dense index, sorted by id),
//! `cold_users` (ids of users without an event), `tallies` (the events counted, by user and
//! search), the cleaned `numbered_events`, the `sessions` of all, `rejected` rows with their reason, and for
//! each [`Window`] of time a folder of model inputs: `interactions`, `users`, `popularity`, `searches`,
//! `query_items`, `baskets`, `transitions`. [`Facts`] counts every row:
//! `read = kept + rejected + excluded`, exactly.
//!
//! Each statement is one file, readable on its own, and any can be replaced from the job
//! (`[behavior.sql]`). The room itself only decides which statement runs when and with which
//! parameters. An event's weight is `type weight · 2^(-age / half_life) · (1 + ln quantity)`, summed
//! per user and item in whole millionths, so that results do not depend on thread timing.
//!
//! Cost: a few scans and one sort of the events; sorts and aggregations spill to disk. It never
//! decides which items may be listed, and never drops a row without counting it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, StringViewArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field as ArrowField, Int64Type, Schema, TimestampMicrosecondType};

use crate::lake::input::{Contract, Field, Input, Kind};
use crate::lake::{self, Lake, Param, Readers};

mod config;
mod consent;
mod facts;
mod statements;

use config::KnownType;
pub use config::{Config, EventWeights, InvalidConfig, LaterEvents};
pub use facts::{Facts, Window};
use statements::Statements;

/// What the room reads. Ids of events and items must be of one type.
pub struct Sources<'a> {
    /// The events.
    pub events: &'a Input,
    /// The catalogue; without it the items are those of the events.
    pub items: Option<&'a Input>,
    /// The users' attributes, which bring in users without an event.
    pub users: Option<&'a Input>,
    /// The column of the users' attributes that says whether a user has agreed; without it nobody is asked.
    pub consent: Option<&'a str>,
    /// Tables of what users turned to, by name, that models are taught by or tested with.
    pub given: Vec<(&'static str, &'a Input)>,
}

/// One statement has finished.
pub struct Step<'a> {
    /// The statement's name.
    pub statement: &'a str,
    /// How many of `of` are done.
    pub done: usize,
    /// How many there are.
    pub of: usize,
}

/// Why behaviour could not be aggregated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] lake::Error),
    /// A replacement statement cannot be read.
    #[error("cannot read the statement {}", path.display())]
    Statement {
        /// The file.
        path: PathBuf,
        /// What the file system reported.
        #[source]
        source: std::io::Error,
    },
    /// A replacement statement is no SQL.
    #[error("{}: expected one SQL statement", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: lake::Error,
    },
    /// A statement's result lacks what later steps read.
    #[error("the statement `{statement}` gave {found}; expected {expected}")]
    Result {
        /// The statement's name.
        statement: String,
        /// What is needed.
        expected: String,
        /// What came.
        found: String,
    },
    /// Too many rows are faulty to trust the rest.
    #[error(
        "{rejected} of {read} events were rejected ({share:.1} %), more than max_rejected_share = {max}: {reasons}"
    )]
    TooManyRejected {
        /// Rejected rows.
        rejected: u64,
        /// Rows read.
        read: u64,
        /// Their share, in per cent.
        share: f64,
        /// The job's limit.
        max: f64,
        /// Counts by reason.
        reasons: String,
    },
    /// No event counts.
    #[error("none of {read} events counts; rejected: {rejected}; excluded: {excluded}")]
    NothingKept {
        /// Rows read.
        read: u64,
        /// Counts by reason.
        rejected: String,
        /// Counts by reason.
        excluded: String,
    },
}

/// The columns read from the events.
pub fn event_contract() -> Contract {
    let fields = vec![
        Field::required("user_id", Kind::User),
        Field::required("item_id", Kind::Id),
        Field::required("event_type", Kind::Text),
        Field::required("event_time", Kind::Time),
        Field::optional("query", Kind::Text),
        Field::optional("quantity", Kind::Number),
        Field::optional("price", Kind::Number),
        Field::optional("session_id", Kind::Text),
    ];
    Contract { fields, open: false }
}

/// The columns read from the users' attributes: all there are.
pub fn user_contract() -> Contract {
    Contract { fields: vec![Field::required("user_id", Kind::User)], open: true }
}

/// The columns read from a given table of what users turned to.
pub fn given_contract() -> Contract {
    let fields = vec![Field::required("user_id", Kind::User), Field::required("item_id", Kind::Id)];
    Contract { fields, open: false }
}

/// Cleans the events and aggregates them, for the whole history (`full`) and, where times are usable,
/// for each of `cuts`: a name, and how many of the last days its window leaves out. Whole days are those of
/// the calendar (UTC), the last event's being one of them. Cuts go from the earliest; what came between one
/// and the next is that window's `held_out`.
///
/// `run_end_us` is the end of the run date: later events are in the future.
///
/// # Errors
/// See [`Error`]; nothing written is complete then.
pub fn aggregate(
    lake: &Lake,
    sources: &Sources,
    config: &Config,
    run_end_us: i64,
    cuts: &[(&str, f64)],
    folder: &Path,
    on_step: &mut dyn FnMut(Step),
) -> Result<Facts, Error> {
    let mut run = Run { lake, statements: Statements::load(config)?, folder, on_step, done: 0 };
    lake.register_input("events", sources.events, &event_contract())?;
    lake.register_rows("event_types", event_types(config))?;
    match sources.users {
        Some(users) => lake.register_input("all_user_attributes", users, &user_contract())?,
        None => lake.define("all_user_attributes", "SELECT user_id FROM events WHERE FALSE", &[])?,
    }
    run.ask_for_consent(sources.consent)?;

    let run_end = ("run_end", Param::Time(run_end_us));
    match sources.items {
        Some(items) => {
            let fields = vec![Field::required("item_id", Kind::Id)];
            lake.register_input("known_items", items, &Contract { fields, open: false })?;
        }
        None => run.view("known_items", std::slice::from_ref(&run_end))?,
    }
    let clock = run.query("clock", std::slice::from_ref(&run_end))?;
    let mut facts = Facts {
        first_us: time(&clock, "first_time"),
        last_us: time(&clock, "last_time"),
        ..Facts::default()
    };
    facts.usable_times = facts.first_us < facts.last_us;
    facts.deduplicated = facts.usable_times && integer(&clock, "n_timed") > 0;
    let history_us = config.history_days.map_or(i64::MAX, |days| days.saturating_mul(DAY_US));
    let history_start = facts.last_us.saturating_sub(history_us).max(EARLIEST_US);
    let max_a_day = if facts.usable_times { config.max_events_per_day } else { i64::MAX };

    facts.n_items = run.table("item_ids", &[])?;
    let reject_later = Param::Bool(config.later_events == LaterEvents::Reject);
    let history_start = ("history_start", Param::Time(history_start));
    let judged = [run_end.clone(), history_start, ("reject_later", reject_later)];
    run.view("judged_events", &judged)?;
    run.table("tallies", &[])?;
    run.table(
        "bots",
        &[
            run_end,
            ("max_events_per_day", Param::Int(max_a_day)),
            ("bot_pattern", Param::Text(config.bot_pattern.clone())),
        ],
    )?;
    run.view("checked_events", &judged)?;
    run.view("outcomes", &[])?;
    run.count(&mut facts)?;
    facts.n_users = run.table("user_ids", &[])?;
    facts.unclear_consent = run.unclear_consent(sources.consent)?;
    facts.n_cold_users = run.table("cold_users", &[])?;
    let rows = run.query("user_rows", &[])?;
    facts.n_unnamed_users = integer(&rows, "n_unnamed") as u64;
    facts.n_repeated_users = integer(&rows, "n_repeated") as u64;
    facts.n_queries = run.table("query_ids", &[])?;
    for (name, given) in &sources.given {
        lake.register_input("all_given_rows", given, &given_contract())?;
        lake.define("given_rows", &consent::of_consenting("all_given_rows", sources.consent), &[])?;
        let of = |n: u64| Param::Int(n as i64);
        run.given(name, &[("n_users", of(facts.n_users)), ("n_items", of(facts.n_items))])?;
    }
    let numbered = run.table("numbered_events", &[])?;
    let copies = ("copies_kept", Param::Int(if facts.deduplicated { 1 } else { i64::MAX }));
    let any_rejected = ("any_rejected", Param::Bool(!facts.rejected.is_empty()));
    let params = [copies.clone(), any_rejected];
    // Of all tables the one that is published as it is.
    let rejected = run.table_in(folder, "rejected", &params, Readers::Anybody(sources.events))?;

    facts.count_kept(numbered, rejected)?;
    refuse_bad_night(&facts, config)?;

    run.table("sessions", std::slice::from_ref(&copies))?;
    lake.define("all_sessions", "SELECT * FROM sessions", &[])?;
    for (name, days) in cuts.iter().filter(|_| facts.usable_times) {
        let until_us = cut(facts.last_us, *days);
        facts.windows.push(Window { name: (*name).to_owned(), until_us, half_life_days: None });
    }
    let until_us = facts.last_us + 1;
    facts.windows.push(Window { name: "full".to_owned(), until_us, half_life_days: None });
    for pair in facts.windows.windows(2) {
        let (cut, until) = (Param::Time(pair[0].until_us), Param::Time(pair[1].until_us));
        run.window_table(&pair[0].name, "held_out", &[copies.clone(), ("cut", cut), ("until", until)])?;
    }
    for window in &mut facts.windows {
        let until = [copies.clone(), ("until", Param::Time(window.until_us))];
        if facts.usable_times {
            let given = config.half_life_days;
            window.half_life_days = Some(given.map_or_else(|| run.half_life(&until), Ok)?);
        }
        let half_life = window.half_life_days.unwrap_or(f64::MAX);
        let mut params = until.to_vec();
        params.extend([("as_of", Param::Time(window.until_us)), ("half_life_days", Param::Float(half_life))]);
        run.view("weighted_events", &params)?;
        for statement in ["interactions", "users"] {
            run.window_table(&window.name, statement, &[])?;
        }
        run.check_segments()?;
        lake.define("sessions", include_str!("../../sql/behavior/window_sessions.sql"), &until[1..])?;
        for statement in ["popularity", "searches", "query_items", "baskets", "transitions"] {
            run.window_table(&window.name, statement, &[])?;
        }
    }
    Ok(facts)
}

/// Writes `users` for windows that hold out pairs of users and items (`held_out` in the window's folder)
/// instead of the latest days: the same statement, over all events but those of the pairs, so that what is
/// held out has no say in who is in which segment. Follows [`aggregate`], in its session.
///
/// # Errors
/// See [`Error`].
pub fn users_of_kept(lake: &Lake, config: &Config, windows: &[&str], folder: &Path) -> Result<(), Error> {
    let statements = Statements::load(config)?;
    let mut run = Run { lake, statements, folder, on_step: &mut |_| {}, done: 0 };
    lake.define("all_weighted_events", "SELECT * FROM weighted_events", &[])?;
    for window in windows {
        lake.register_file("held_out_pairs", &folder.join(window).join("held_out.parquet"))?;
        lake.define("weighted_events", include_str!("../../sql/behavior/kept_events.sql"), &[])?;
        run.view("interactions", &[])?;
        run.window_table(window, "users", &[])?;
        run.check_segments()?;
    }
    Ok(())
}

/// Writes columns of the users' table as text, `value_0` and so on, one row a user in the order of
/// `user_idx`, from the users and the registered `user_ids`. Of rows with the same id the first by these
/// columns counts; a user without one has nulls.
///
/// # Errors
/// If a column is not there.
pub fn attributes(lake: &Lake, users: &Input, columns: &[&str], path: &Path) -> Result<(), Error> {
    lake.register_input("user_attributes", users, &user_contract())?;
    let values: Vec<String> = (0..columns.len()).map(|at| format!("value_{at}")).collect();
    let values = values.join(", ");
    let sql = format!(
        "SELECT user_idx, {values} FROM (
            SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY {values}) AS copy
            FROM (SELECT user_id{} FROM user_attributes)
        ) AS users RIGHT JOIN user_ids ON users.user_id = user_ids.user_id
        WHERE coalesce(copy, 1) = 1
        ORDER BY user_idx",
        lake::as_text(columns)
    );
    lake.write("user_attributes", &sql, &[], path, Readers::Stages)?;
    Ok(())
}

/// The end of a window that leaves the last days out.
fn cut(last_us: i64, days: f64) -> i64 {
    if days.fract() == 0.0 {
        let today = last_us.div_euclid(DAY_US) * DAY_US;
        return today - (days as i64 - 1) * DAY_US;
    }
    last_us - (days * DAY_US as f64) as i64 + 1
}

const DAY_US: i64 = 86_400_000_000;
/// In 1677, the first microsecond that nanoseconds can tell.
const EARLIEST_US: i64 = i64::MIN / 1000;

/// What all users together are called where their segments have names.
pub const EVERYBODY: &str = "all";

/// The statements of one run, in the order the door calls them.
struct Run<'a> {
    lake: &'a Lake,
    statements: Statements,
    folder: &'a Path,
    on_step: &'a mut dyn FnMut(Step),
    done: usize,
}

impl Run<'_> {
    fn step(&mut self, statement: &str) {
        self.done += 1;
        // Consent and a missing catalogue take one more each.
        (self.on_step)(Step { statement, done: self.done, of: statements::COUNT.max(self.done) });
    }

    fn query(&mut self, statement: &str, params: &[(&str, Param)]) -> Result<RecordBatch, Error> {
        let rows = self.lake.query(statement, self.statements.text(statement), params)?;
        self.step(statement);
        Ok(rows)
    }

    fn view(&mut self, statement: &str, params: &[(&str, Param)]) -> Result<(), Error> {
        self.lake.define(statement, self.statements.text(statement), params)?;
        self.step(statement);
        Ok(())
    }

    /// Writes the statement's rows and registers them under its name.
    fn table(&mut self, statement: &str, params: &[(&str, Param)]) -> Result<u64, Error> {
        self.table_in(self.folder, statement, params, Readers::Stages)
    }

    fn window_table(&mut self, window: &str, statement: &str, params: &[(&str, Param)]) -> Result<(), Error> {
        self.table_in(&self.folder.join(window), statement, params, Readers::Stages).map(drop)
    }

    fn table_in(
        &mut self,
        folder: &Path,
        statement: &str,
        params: &[(&str, Param)],
        readers: Readers<'_>,
    ) -> Result<u64, Error> {
        let path = folder.join(format!("{statement}.parquet"));
        let rows = self.lake.write(statement, self.statements.text(statement), params, &path, readers)?;
        self.lake.register_file(statement, &path)?;
        if rows == 0 {
            // What the engine knows to be empty it does not join with; of a file it does not know.
            let nothing = format!("SELECT * FROM {statement} WHERE FALSE");
            self.lake.define(statement, &nothing, &[])?;
        }
        self.step(statement);
        Ok(rows)
    }

    fn given(&mut self, name: &str, params: &[(&str, Param)]) -> Result<(), Error> {
        let path = self.folder.join(format!("{name}.parquet"));
        self.lake.write("given", self.statements.text("given"), params, &path, Readers::Stages)?;
        self.step("given");
        Ok(())
    }

    /// The half-life in days of a window's events, where the job gives none.
    fn half_life(&mut self, window: &[(&str, Param)]) -> Result<f64, Error> {
        let rows = self.query("ages", window)?;
        let column = |name: &str| {
            let column = rows.column_by_name(name).and_then(|column| cast(column, &DataType::Int64).ok());
            let values = column.map(|column| column.as_primitive::<Int64Type>().values().to_vec());
            values.ok_or_else(|| Error::Result {
                statement: "ages".to_owned(),
                expected: format!("a column `{name}` of integers"),
                found: rows.schema().to_string(),
            })
        };
        Ok(config::open_half_life(&column("age_days")?, &column("n_events")?))
    }

    /// Segments name lists, one of which is everybody's.
    fn check_segments(&mut self) -> Result<(), Error> {
        let sql = "SELECT count(*) AS n FROM users WHERE segment IS NULL OR segment = $everybody";
        let everybody = ("everybody", Param::Text(EVERYBODY.to_owned()));
        let found = integer(&self.lake.query("users", sql, &[everybody])?, "n");
        if found == 0 {
            return Ok(());
        }
        Err(Error::Result {
            statement: "users".to_owned(),
            expected: format!("a `segment` that is neither null nor `{EVERYBODY}`"),
            found: format!("{found} users with one"),
        })
    }

    /// Who has not agreed, and the attributes of those who have: of everybody where the job does not ask.
    fn ask_for_consent(&mut self, column: Option<&str>) -> Result<(), Error> {
        self.lake.define("consenting", &consent::given(column), &[])?;
        self.lake.define("user_attributes", &consent::of_consenting("all_user_attributes", column), &[])?;
        match column {
            Some(_) => self.view("without_consent", &[]),
            None => Ok(self.lake.define("without_consent", "SELECT user_id FROM events WHERE FALSE", &[])?),
        }
    }

    /// What the column of consent has that is neither yes nor no, some of it.
    fn unclear_consent(&self, column: Option<&str>) -> Result<Vec<String>, Error> {
        let Some(column) = column else { return Ok(Vec::new()) };
        let sql = consent::unclear(column);
        let rows = self.lake.query("consent", &sql, &[])?;
        Ok(strings(&rows, "answer")?.iter().flatten().map(str::to_owned).collect())
    }

    fn count(&mut self, facts: &mut Facts) -> Result<(), Error> {
        let rows = self.query("accounting", &[])?;
        let reasons = strings(&rows, "reason")?;
        let exclusions = strings(&rows, "exclusion")?;
        let counts = rows.column_by_name("n_events").map(|column| column.as_primitive::<Int64Type>());
        for at in 0..rows.num_rows() {
            let n_events = counts.map_or(0, |counts| counts.value(at)) as u64;
            facts.read += n_events;
            if reasons.is_valid(at) {
                facts.rejected.insert(reasons.value(at).to_owned(), n_events);
            } else if exclusions.is_valid(at) {
                facts.excluded.insert(exclusions.value(at).to_owned(), n_events);
            }
        }
        Ok(())
    }
}

fn refuse_bad_night(facts: &Facts, config: &Config) -> Result<(), Error> {
    let rejected: u64 = facts.rejected.values().sum();
    let share = rejected as f64 / facts.read.max(1) as f64;
    if share > config.max_rejected_share {
        return Err(Error::TooManyRejected {
            rejected,
            read: facts.read,
            share: 100.0 * share,
            max: config.max_rejected_share,
            reasons: list(&facts.rejected),
        });
    }
    if facts.kept == 0 {
        return Err(Error::NothingKept {
            read: facts.read,
            rejected: list(&facts.rejected),
            excluded: list(&facts.excluded),
        });
    }
    Ok(())
}

fn list(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    counts.iter().map(|(reason, n)| format!("{reason} {n}")).collect::<Vec<_>>().join(", ")
}

/// Every name an event may carry, the type it stands for, and the type's weight and strength, which
/// tells the strongest thing a user did with an item.
fn event_types(config: &Config) -> RecordBatch {
    let types = config.known_types();
    let by_strength = config.types_by_strength();
    let strength =
        |of: &KnownType| by_strength.iter().position(|name| *name == of.event_type).unwrap_or(0) as i64;
    // Strings are views, as the events' are: with a union below a join, the cast of a key gets lost.
    let columns: [(&str, ArrayRef); 4] = [
        ("name", Arc::new(types.iter().map(|t| Some(t.name.as_str())).collect::<StringViewArray>())),
        (
            "event_type",
            Arc::new(types.iter().map(|t| Some(t.event_type.as_str())).collect::<StringViewArray>()),
        ),
        ("weight", Arc::new(types.iter().map(|t| t.weight).collect::<Float64Array>())),
        ("strength", Arc::new(types.iter().map(strength).collect::<Int64Array>())),
    ];
    let fields: Vec<ArrowField> = columns
        .iter()
        .map(|(name, values)| ArrowField::new(*name, values.data_type().clone(), false))
        .collect();
    let values = columns.into_iter().map(|(_, values)| values).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), values)
        .expect("four columns of one length fit the schema made from them")
}

fn strings(rows: &RecordBatch, name: &str) -> Result<StringArray, Error> {
    let column = rows.column_by_name(name);
    let text = column
        .filter(|column| column.data_type().is_string())
        .and_then(|column| cast(column, &DataType::Utf8).ok());
    text.map(|text| text.as_string::<i32>().clone()).ok_or_else(|| Error::Result {
        statement: "accounting".to_owned(),
        expected: format!("a string column `{name}`"),
        found: column.map_or("none".to_owned(), |column| column.data_type().to_string()),
    })
}

fn time(rows: &RecordBatch, name: &str) -> i64 {
    rows.column_by_name(name)
        .and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>())
        .filter(|column| column.len() == 1 && column.is_valid(0))
        .map_or(0, |column| column.value(0))
}

fn integer(rows: &RecordBatch, name: &str) -> i64 {
    rows.column_by_name(name)
        .and_then(|column| cast(column, &DataType::Int64).ok())
        .filter(|column| column.len() == 1)
        .map_or(0, |column| column.as_primitive::<Int64Type>().value(0))
}
