//! One kernel on given data, timed without reading and writing: what `benches/peers/compare.py` runs in turn
//! with other programs. Matrices are raw little-endian numbers, row after row.
//!
//! ```text
//! measure aggregate SHOP FOLDER MIB
//! measure retrieve QUERIES.f32 ITEMS.f32 COLUMNS K LISTS.u32
//! measure encode TEXTS.txt MODEL PRECISION|static EMBEDDINGS.f32 [cuda|metal]
//! measure factorize ROWS.u32 COLS.u32 WEIGHTS.f32 RANK SWEEPS UNOBSERVED REGULARIZATION USERS.f32 ITEMS.f32
//! ```
//!
//! Prints one JSON line, and of the aggregate what each statement took in seconds and CPU seconds. Threads are
//! `RAYON_NUM_THREADS`.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::time::Instant;

use lamplighter::behavior::{self, Sources};
use lamplighter::lake::input::{self, Contract, Field, Input, Kind};
use lamplighter::lake::{self, Lake};
use lamplighter::matrix::{Csr, Dense};
use lamplighter::{encoder, factor, retrieval};

type Failed = Box<dyn std::error::Error>;

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Failed> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let line = match given[..] {
        ["aggregate", shop, folder, mib] => aggregate(Path::new(shop), Path::new(folder), mib.parse()?)?,
        ["retrieve", queries, items, columns, k, lists] => {
            let columns = columns.parse()?;
            let (queries, items) = (dense(queries, columns)?, dense(items, columns)?);
            let request = retrieval::Request {
                queries: &queries,
                seen: None,
                sparse: None,
                exclude_self: false,
                top_k: k.parse()?,
            };
            let started = Instant::now();
            let found = retrieval::index(&items, None)?.retrieve(&request, &mut |_| {})?;
            let seconds = started.elapsed().as_secs_f64();
            let mut file = BufWriter::new(File::create(lists)?);
            for item in (0..found.n_lists()).flat_map(|at| found.list(at).0) {
                file.write_all(&item.to_le_bytes())?;
            }
            file.flush()?;
            format!("{{\"seconds\": {seconds:.4}}}")
        }
        ["encode", texts, model, precision, embeddings] => {
            encode(texts, model, precision, encoder::Device::Cpu, embeddings)?
        }
        ["encode", texts, model, precision, embeddings, device] => {
            encode(texts, model, precision, encoder::Device::parse(device)?, embeddings)?
        }
        ["factorize", rows, cols, weights, rank, sweeps, unobserved_weight, regularization, users, items] => {
            let (rows, cols) = (numbers(rows, u32::from_le_bytes)?, numbers(cols, u32::from_le_bytes)?);
            let weights = numbers(weights, f32::from_le_bytes)?;
            let count = |of: &[u32]| of.iter().max().map_or(0, |most| *most as usize + 1);
            let interactions = Csr::from_coordinates(count(&rows), count(&cols), &rows, &cols, &weights)?;
            drop((rows, cols, weights));
            let config = factor::Config {
                rank: rank.parse()?,
                iterations: sweeps.parse()?,
                unobserved_weight: unobserved_weight.parse()?,
                regularization: regularization.parse()?,
                regularization_exponent: 0.0,
            };
            let started = Instant::now();
            let found = factor::factorize(&interactions, &config, factor::Start::Drawn, 1, &mut |_| {})?;
            let seconds = started.elapsed().as_secs_f64();
            write(users, found.users.values())?;
            write(items, found.items.values())?;
            format!("{{\"seconds\": {seconds:.4}, \"objective\": {:.9e}}}", found.objective.total())
        }
        _ => return Err("expected aggregate, retrieve, encode or factorize and their arguments".into()),
    };
    println!("{line}");
    Ok(())
}

/// Texts to embeddings, by a model that is loaded and warm.
fn encode(
    texts: &str,
    model: &str,
    precision: &str,
    device: encoder::Device,
    embeddings: &str,
) -> Result<String, Failed> {
    let texts = std::fs::read_to_string(texts)?;
    let texts: Vec<&str> = texts.lines().collect();
    let (kind, precision) = match precision {
        "static" => (encoder::Kind::Static, encoder::Precision::F32),
        _ => (encoder::Kind::Transformer, encoder::Precision::parse(precision)?),
    };
    let config = encoder::Config { model: model.to_owned(), kind, precision, device, ..Default::default() };
    let corpus = encoder::Corpus { texts: &texts, ..Default::default() };
    let encoder = encoder::load(&config, corpus, &mut |_| {})?;
    encoder.encode(&texts[..texts.len().min(64)], &mut |_| {})?;
    let started = Instant::now();
    let found = encoder.encode(&texts, &mut |_| {})?;
    let seconds = started.elapsed().as_secs_f64();
    write(embeddings, found.values())?;
    Ok(format!("{{\"seconds\": {seconds:.4}}}"))
}

/// The behaviour stage on a shop: seconds until the weighted pairs of dense indices lie in a file, and until all of
/// it does (searches, baskets, transitions, popularity).
fn aggregate(shop: &Path, folder: &Path, mib: usize) -> Result<String, Failed> {
    let open = |name: &str, contract: &Contract| -> Result<Input, input::Error> {
        let config = input::Config::of(&shop.join(name).to_string_lossy());
        input::discover(&config, contract, &lake::Access::default())
    };
    let ids = Contract { fields: vec![Field::required("item_id", Kind::Id)], open: false };
    let (events, items) = (open("events", &behavior::event_contract())?, open("items.parquet", &ids)?);
    let sources =
        Sources { events: &events, items: Some(&items), users: None, consent: None, given: Vec::new() };
    std::fs::create_dir_all(folder.join("full"))?;
    let started = Instant::now();
    let (mut seconds, mut beside) = (0.0, 0.0);
    let mut last = (0.0, cpu_seconds());
    let lake = Lake::open(&lake::Config {
        threads: rayon::current_num_threads(),
        memory_bytes: mib << 20,
        spill_dir: Some(folder.join("spill")),
    })?;
    let facts = behavior::aggregate(
        &lake,
        &sources,
        &behavior::Config::default(),
        AFTER_ALL,
        &[],
        folder,
        &mut |step| {
            let now = (started.elapsed().as_secs_f64(), cpu_seconds());
            eprintln!("{:<18} {:6.2} {:6.2}", step.statement, now.0 - last.0, now.1 - last.1);
            match step.statement {
                // What pairs do not need.
                "sessions" => beside = now.0 - last.0,
                "interactions" => seconds = now.0 - beside,
                _ => {}
            }
            last = now;
        },
    )?;
    let all = started.elapsed().as_secs_f64();
    Ok(format!("{{\"seconds\": {seconds:.4}, \"stage_seconds\": {all:.4}, \"kept\": {}}}", facts.kept))
}

/// The year 2100, in microseconds.
const AFTER_ALL: i64 = 4_102_444_800_000_000;

fn dense(path: &str, columns: usize) -> Result<Dense, Failed> {
    let values = numbers(path, f32::from_le_bytes)?;
    Ok(Dense::from_vec(values.len() / columns, columns, values)?)
}

// By pieces, so that the process's memory is the kernel's.
const AT_A_TIME: usize = 64 << 10;

fn write(path: &str, values: &[f32]) -> Result<(), Failed> {
    let mut file = File::create(path)?;
    for some in values.chunks(AT_A_TIME) {
        file.write_all(&some.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    Ok(())
}

fn numbers<T>(path: &str, number: impl Fn([u8; 4]) -> T) -> Result<Vec<T>, Failed> {
    let mut file = File::open(path)?;
    let n = file.metadata()?.len() as usize / 4;
    let mut values = Vec::with_capacity(n);
    while values.len() < n {
        let mut bytes = vec![0; 4 * AT_A_TIME.min(n - values.len())];
        file.read_exact(&mut bytes)?;
        values.extend(bytes.as_chunks().0.iter().map(|bytes| number(*bytes)));
    }
    Ok(values)
}

/// User and system time of this process so far, of the kernel's clock of a hundredth.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
