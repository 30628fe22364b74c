//! The kernels that decide what a night costs, on made-up data of fixed seed: `make bench`.
//!
//! `cargo bench --bench kernels -- --save-baseline before`, then `-- --baseline before`, compares two states of
//! the code on one machine. Beside others' programs: `make bench-peers`.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use lamplighter::matrix::{Csr, Dense};
use lamplighter::{encoder, factor, retrieval};

/// A fixed stream of values in `0 .. 1`.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1u64 << 31) as f64
    }

    /// Near a bell curve.
    fn bell(&mut self) -> f32 {
        ((0..4).map(|_| self.next()).sum::<f64>() - 2.0) as f32
    }
}

/// Rows around a few directions, of lengths that fall like popularity: as factors are, and as independent
/// draws are not.
fn factors(n_rows: usize, d: usize, seed: u64) -> Dense {
    const DIRECTIONS: usize = 40;
    let (mut draws, mut shared) = (Draws(seed), Draws(1));
    let directions: Vec<Vec<f32>> =
        (0..DIRECTIONS).map(|_| (0..d).map(|_| shared.bell()).collect()).collect();
    let mut rows = Dense::zeros(n_rows, d);
    for at in 0..n_rows {
        let direction = &directions[(draws.next() * DIRECTIONS as f64) as usize];
        let length = (0.2 + 1.0 / (1.0 + (at % 997) as f32).sqrt()) / (d as f32).sqrt();
        for (value, along) in rows.row_mut(at).iter_mut().zip(direction) {
            *value = (along + 0.7 * draws.bell()) * length;
        }
    }
    rows
}

fn pairs(n_users: usize, n_items: usize, each: usize) -> Csr {
    let mut draws = Draws(9);
    let rows = (0..n_users).map(|_| {
        let items: std::collections::BTreeSet<u32> =
            (0..each).map(|_| (draws.next().powi(2) * n_items as f64) as u32).collect();
        items.into_iter().map(|item| (item, 1.0 + (draws.next() * 4.0) as f32)).collect()
    });
    Csr::from_rows(n_items, rows.collect())
}

fn retrieve(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("retrieve, 2,000 x 50,000, K = 100");
    for d in [64, 128, 512] {
        let (queries, items) = (factors(2_000, d, 3), factors(50_000, d, 7));
        let request = retrieval::Request {
            queries: &queries,
            seen: None,
            sparse: None,
            exclude_self: false,
            top_k: 100,
        };
        group.throughput(Throughput::Elements(2_000));
        group.bench_function(format!("{d} columns"), |bencher| {
            bencher.iter(|| {
                let mut index = retrieval::index(&items, None).expect("finite items");
                index.retrieve(&request, &mut |_| {}).expect("lists")
            });
        });
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/data/models/all-MiniLM-L6-v2");
    let texts: Vec<String> = (0..256)
        .map(|at| {
            format!(
                "Norix compact kettle number {at}. Foldable stainless kettle by Norix for the kitchen; quiet."
            )
        })
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut group = criterion.benchmark_group("encode, 256 texts, MiniLM-L6");
    group.throughput(Throughput::Elements(256));
    for precision in [encoder::Precision::F32, encoder::Precision::Bf16] {
        let config = encoder::Config { model: model.to_owned(), precision, ..encoder::Config::default() };
        let encoder = encoder::load(&config, encoder::Corpus::default(), &mut |_| {})
            .expect("the model that `make data` fetches");
        group.bench_function(format!("{precision:?}"), |bencher| {
            bencher.iter(|| encoder.encode(&texts, &mut |_| {}).expect("embeddings"));
        });
    }
    group.finish();
}

fn factorize(criterion: &mut Criterion) {
    let interactions = pairs(20_000, 10_000, 60);
    let config = factor::Config { rank: 128, iterations: 2, ..factor::Config::default() };
    let mut group = criterion.benchmark_group("factorize, 20,000 x 10,000, two sweeps");
    group.throughput(Throughput::Elements(interactions.n_entries() as u64));
    group.bench_function("rank 128", |bencher| {
        let run = |interactions| {
            factor::factorize(&interactions, &config, factor::Start::Drawn, 1, &mut |_| {}).expect("factors")
        };
        bencher.iter_batched(|| interactions.clone(), run, BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group! {
    name = kernels;
    config = Criterion::default().sample_size(10);
    targets = retrieve, encode, factorize
}
criterion_main!(kernels);
