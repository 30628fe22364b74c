//! `run --dry-run`: the plan, what would be reused, and what it would cost.

use crate::encoder::Kind;
use crate::error::Error;
use crate::job::{Job, Spec};
use crate::lake::input::Input;
use crate::linear;
use crate::publish;
use crate::ranking::Source;

use super::{Options, STAGES, check, run_date};

/// Rates of the reference machine (2 cores, AVX-512), rounded to be safe; the plan says so.
const EVENTS_PER_S: f64 = 80_000.0;
const TEXTS_PER_S: f64 = 250.0;
const STATIC_TEXTS_PER_S: f64 = 12_500.0;
/// Texts by their words.
const WORDS_TEXTS_PER_S: f64 = 100_000.0;
/// A vocabulary of 30,000 once.
const DISTIL_S: f64 = 30.0;
const FLOPS: f64 = 20e9;
const FLOPS_F64: f64 = 10e9;
const ADDITIONS: f64 = 100e6;

/// Where no footer tells how many there are.
const EVENTS_OF_AN_ITEM: f64 = 10.0;
const EVENTS_OF_A_USER: f64 = 20.0;
/// How much larger the mean of users' squared numbers of items is than the square of the mean.
const SKEW: f64 = 5.0;
/// Numbers in an embedding, of most models that fit this machine.
const DIM: f64 = 384.0;
/// The catalogue that lists are taken from, a number of every dense source's vectors: in f32, packed, and in bytes.
const BYTES_OF_A_LISTED_NUMBER: f64 = 9.0;
const BASE_MIB: f64 = 300.0;
/// What models and lists take with the work on them: the demonstration's peak is 1.2 times what they come to.
const AT_WORK: f64 = 1.25;
const MIB: f64 = 1_048_576.0;

/// What would run, in the words of `--dry-run`. Reads footers, writes nothing.
///
/// # Errors
/// Whatever is wrong with the job's inputs, model or device.
pub fn plan(job: &Job, options: &Options) -> Result<String, Error> {
    let inputs = check::inputs(job)?;
    let spec = &job.spec;
    let date = run_date(job, options);
    let events = inputs.events.rows();
    let items = inputs.items.as_ref().map(|items| items.rows());
    let mut text =
        format!("plan for {} on {date}, {} threads; nothing is run\n\n", spec.name.0, spec.threads);
    for (name, input) in inputs.all() {
        text += &format!("  read {:>12} rows of {name} from {} file(s)\n", input.rows(), input.files.len());
    }
    text += "\n";
    let runs = publish::list_runs(&job.place, &spec.name.0)?;
    let unfinished = runs.iter().rev().find(|run| run.date == date && !run.complete);
    match unfinished {
        Some(run) => text += &format!("  would resume {}\n", run.id),
        None => {
            let attempt =
                runs.iter().filter(|run| run.date == date).map(|run| run.attempt).max().unwrap_or(0);
            text += &format!("  would begin {}-{date}-{}\n", spec.name.0, attempt + 1);
        }
    }
    let source = unfinished.or(runs.last());
    for stage in STAGES.iter().filter(|stage| **stage != "publish") {
        let there = source.filter(|run| run.folder.join("stages").join(stage).join("stage.json").exists());
        let state = match there {
            Some(run) => format!("reused from {} where its inputs and parameters are unchanged", run.id),
            None => "to do".to_owned(),
        };
        text += &format!("  {stage:<12} {state}\n");
    }
    let (text_of_models, seconds_of_models, mib_of_models) = models(spec, &size(&inputs));
    text += &text_of_models;
    let sql_s = events as f64 / EVENTS_PER_S;
    let encode_s = match (items.filter(|_| spec.embeds()), spec.encoder.kind) {
        (Some(items), Kind::Transformer) => items as f64 / TEXTS_PER_S,
        (Some(items), Kind::Static) => DISTIL_S + items as f64 / STATIC_TEXTS_PER_S,
        (Some(items), Kind::Words) => items as f64 / WORDS_TEXTS_PER_S,
        (None, _) => 0.0,
    };
    let memory = (f64::from(spec.sql_memory_mib.0) + BASE_MIB).max(AT_WORK * mib_of_models + BASE_MIB);
    text += &format!(
        "\n  estimate, from rates of a 2-core machine: at most {:.0} s (behavior {sql_s:.0}, encode {encode_s:.0}, models {seconds_of_models:.0}), memory at most {:.1} GiB\n",
        sql_s + encode_s + seconds_of_models + 10.0,
        memory / 1024.0
    );
    Ok(text)
}

/// What footers tell of the night's size.
struct Size {
    events: f64,
    items: f64,
    users: f64,
}

fn size(inputs: &check::Inputs) -> Size {
    let events = inputs.events.rows() as f64;
    let rows = |input: &Option<Input>| input.as_ref().map(|input| input.rows() as f64);
    Size {
        events,
        items: rows(&inputs.items).unwrap_or(events / EVENTS_OF_AN_ITEM),
        users: rows(&inputs.users).unwrap_or(events / EVENTS_OF_A_USER),
    }
}

/// A model's size as the job or the catalogue sets it, seconds to fit it once, and memory while that goes on.
struct Bound {
    source: Source,
    size: String,
    seconds: f64,
    mib: f64,
    /// Numbers that an item has in the catalogue that lists are taken from; sparse models have none.
    width: f64,
}

/// Every model that the job has a use for, as text, and what they take together.
fn models(spec: &Spec, size: &Size) -> (String, f64, f64) {
    let weights = spec.ranking.weights;
    let counts = |source: Source| {
        let given = weights.is_none_or(|weights| weights.of(source) > 0.0);
        let of_use = source != Source::Repeat || !spec.ranking.exclude_seen;
        given && of_use && !spec.ranking.without.contains(&source)
    };
    let fits = if weights.is_some() { 2.0 } else { 3.0 };
    let bounds: Vec<Bound> = bounds(spec, size).into_iter().filter(|bound| counts(bound.source)).collect();
    let numbers = bounds.iter().map(|bound| bound.width).sum::<f64>();
    let lists_mib = BYTES_OF_A_LISTED_NUMBER * numbers * size.items / MIB;
    let mut text =
        format!("\n  models, by {:.0} items; each is fitted {fits} times, once a window\n", size.items);
    for Bound { source, size, seconds, mib, .. } in &bounds {
        text += &format!(
            "  {:<12} {size:<32} at most {:>5.0} s {mib:>7.0} MiB\n",
            source.name(),
            seconds.max(1.0)
        );
    }
    text += &format!("  {:<12} {numbers:.0} numbers an item {lists_mib:>36.0} MiB\n", "lists");
    let seconds = fits * bounds.iter().map(|bound| bound.seconds).sum::<f64>();
    (text, seconds, lists_mib + bounds.iter().map(|bound| bound.mib).sum::<f64>())
}

fn bounds(spec: &Spec, size: &Size) -> Vec<Bound> {
    let Size { events, items, users } = *size;
    let config = &spec.linear;
    let (rank, sweeps) = (spec.factors.rank(users as usize, items as usize), spec.factors.iterations);
    let neighbours = (config.ease_neighbours as f64).min(items);
    let kept = config.kept(items as usize) as f64;
    let together = SKEW * events * (events / users.max(1.0));
    let steps = 2.0 * config.sequence_steps as f64;
    let vectors = config.spectral_rank(users as usize, items as usize);
    let (r, v) = (rank as f64, vectors as f64);
    let dim = spec.encoder.dim(items as usize).map_or(DIM, |dim| dim as f64);
    let bound = |source, size, seconds, bytes: f64| {
        let width = match source {
            Source::Factors => r,
            Source::Spectral => v,
            Source::Content => dim,
            _ => 0.0,
        };
        Bound { source, size, seconds, mib: bytes / MIB, width }
    };
    let kept_entries = |touched: f64| 8.0 * touched.min(kept * items);
    let mut bounds = vec![
        bound(
            Source::Factors,
            format!("rank {rank}, {sweeps} sweeps"),
            sweeps as f64 * (24.0 * events * r + 2.0 * (items + users) * r * r) / FLOPS,
            8.0 * r * (items + users) + 12.0 * events,
        ),
        if items > config.ease_items as f64 {
            let (size, m) = (format!("of {neighbours} neighbours an item"), neighbours);
            let seconds = items * m.powi(3) / 3.0 / FLOPS_F64 + SKEW * m * events / ADDITIONS;
            bound(Source::Ease, size, seconds, 8.0 * m * items)
        } else {
            let (size, kept) = (format!("one inverse of {items:.0} items"), kept.min(items));
            bound(Source::Ease, size, items.powi(3) / FLOPS_F64, 8.0 * items * items + 8.0 * kept * items)
        },
    ];
    for source in [Source::Walk, Source::Cosine] {
        let size = format!("{kept} neighbours an item");
        bounds.push(bound(source, size, together / ADDITIONS, kept_entries(together)));
    }
    let peers = config.peers(users as usize);
    let pairs = (SKEW * events * (events / items.max(1.0))).min(linear::MOST_PAIRS);
    bounds.push(bound(
        Source::Peers,
        format!("{peers} neighbours a user"),
        pairs / ADDITIONS,
        8.0 * (peers as f64 * users + events),
    ));
    bounds.push(bound(
        Source::Sequence,
        format!("{} steps, {kept} neighbours", config.sequence_steps),
        steps * events / ADDITIONS,
        kept_entries(steps * events),
    ));
    bounds.push(bound(
        Source::Spectral,
        format!("rank {vectors}, {} iterations", config.spectral_iterations),
        config.spectral_iterations as f64 * (4.0 * events * v + 4.0 * items * v * v) / FLOPS_F64,
        8.0 * v * (2.0 * items + users),
    ));
    bounds.push(bound(Source::Repeat, "what users bought before".to_owned(), 1.0, 24.0 * events));
    if spec.embeds() {
        let size = "embeddings of items and users".to_owned();
        bounds.push(bound(Source::Content, size, 1.0, 8.0 * dim * (items + users)));
    }
    bounds
}
