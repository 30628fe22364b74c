//! A made-up shop and a job over it, in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

#[path = "../shop/generator.rs"]
mod generator;

pub(crate) use generator::Planted;

/// A shop's folder: data, a job file, an output.
pub(crate) struct Shop {
    folder: tempfile::TempDir,
    pub(crate) planted: Planted,
}

impl Shop {
    pub(crate) fn new(events: u64, dirty: f64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config =
            generator::Shop { users: 300, items: 200, events, days: 20, dirty, ..generator::Shop::default() };
        let planted = generator::generate(&config, &folder.path().join("data")).expect("a shop");
        let shop = Self { folder, planted };
        shop.write_job("");
        shop
    }

    /// The job, with more lines at its end.
    pub(crate) fn write_job(&self, more: &str) {
        let job = format!(
            r#"name = "night"
output = "out"
seed = 7
threads = 2

[inputs.events]
path = "data/events"

[inputs.items]
path = "data/items.parquet"

[factors]
rank = 16
iterations = 4

[ranking]
top_k = 20
weights = {{ factors = 1.0, popularity = 0.1, history = 0.5 }}

[evaluation]
bootstrap = 20
test_days = 5

[publish]
buckets = 4

[gate]
enabled = false
{more}
"#
        );
        std::fs::write(self.path("job.toml"), job).expect("a job file");
    }

    /// Leaves what each source counts for to be learned.
    pub(crate) fn without_weights(&self) {
        self.replace("weights = { factors = 1.0, popularity = 0.1, history = 0.5 }", "");
    }

    /// Puts another text in the place of one in the job.
    pub(crate) fn replace(&self, old: &str, new: &str) {
        let job = std::fs::read_to_string(self.path("job.toml")).expect("the job");
        assert!(job.contains(old), "{old} in {job}");
        std::fs::write(self.path("job.toml"), job.replace(old, new)).expect("the job");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The files of the events, from the shop's folder, by day.
    pub(crate) fn event_files(&self) -> Vec<String> {
        let days = std::fs::read_dir(self.path("data/events")).expect("the events");
        let mut files: Vec<String> = days
            .map(|day| day.expect("a day").file_name().into_string().expect("a name"))
            .map(|day| format!("data/events/{day}/part-0.parquet"))
            .collect();
        files.sort();
        files
    }

    /// Writes other rows into one of the shop's files.
    pub(crate) fn rewrite(&self, file: &str, change: impl FnOnce(RecordBatch) -> RecordBatch) {
        self.write(file, &change(read(&self.path(file))));
    }

    /// Writes rows into a file of the shop's.
    pub(crate) fn write(&self, file: &str, rows: &RecordBatch) {
        let file = std::fs::File::create(self.path(file)).expect("the file");
        let mut writer = ArrowWriter::try_new(file, rows.schema(), None).expect("a writer");
        writer.write(rows).expect("rows");
        writer.close().expect("a footer");
    }

    /// Runs `lamplighter` in the shop's folder, in a clean environment.
    pub(crate) fn lamplighter(&self, args: &[&str]) -> Output {
        command(args).current_dir(self.folder.path()).output().expect("the binary starts")
    }

    /// Runs the job and returns the run's folder.
    #[track_caller]
    pub(crate) fn run(&self, more: &[&str]) -> PathBuf {
        self.run_of("2026-11-21", more)
    }

    /// The same of another day.
    #[track_caller]
    pub(crate) fn run_of(&self, date: &str, more: &[&str]) -> PathBuf {
        let mut args = vec!["run", "job.toml", "--date", date];
        args.extend(more);
        let output = self.lamplighter(&args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let elsewhere = more.iter().find_map(|set| set.strip_prefix("output="));
        self.current_of(elsewhere.unwrap_or("out"))
    }

    /// The run that `CURRENT` names.
    #[track_caller]
    pub(crate) fn current(&self) -> PathBuf {
        self.current_of("out")
    }

    pub(crate) fn current_of(&self, output: &str) -> PathBuf {
        let text = std::fs::read_to_string(self.path(output).join("CURRENT")).expect("CURRENT");
        let current: serde_json::Value = serde_json::from_str(&text).expect("CURRENT is JSON");
        self.path(output).join(current["path"].as_str().expect("CURRENT has a path"))
    }
}

/// The binary under test, without this process's environment.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lamplighter"));
    command.args(args).env_clear();
    command
}

pub(crate) fn manifest(run: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(run.join("manifest.json")).expect("a manifest");
    serde_json::from_str(&text).expect("the manifest is JSON")
}

/// The file's rows, all in one batch.
pub(crate) fn read(path: &Path) -> RecordBatch {
    let file = std::fs::File::open(path).expect("a file");
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
    let schema = builder.schema().clone();
    let batches: Vec<RecordBatch> =
        builder.build().expect("a reader").map(|batch| batch.expect("rows")).collect();
    arrow::compute::concat_batches(&schema, &batches).expect("one batch")
}
