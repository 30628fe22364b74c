//! `run --dry-run`: the plan, what would be reused, and what it would cost.

use crate::error::Error;
use crate::job::Job;
use crate::publish;

use super::{Options, STAGES, check, run_date};

/// Rates of the reference machine (2 cores, AVX-512), rounded to be safe; the plan says so.
const EVENTS_PER_S: f64 = 80_000.0;
const TEXTS_PER_S: f64 = 250.0;

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
    let runs = publish::list_runs(&spec.output, &spec.name.0)?;
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
    let n_items = items.unwrap_or(events / 10) as f64;
    let sql_s = events as f64 / EVENTS_PER_S;
    let encode_s = if spec.encoder.is_some() && items.is_some() { n_items / TEXTS_PER_S } else { 0.0 };
    let rank = spec.factors.rank(n_items as usize) as f64;
    let sweep_flops = 12.0 * events as f64 * rank + 2.0 * n_items * rank * rank;
    let factorize_s = 2.0 * spec.factors.iterations as f64 * sweep_flops / 20e9;
    let sql_mib = f64::from(spec.sql_memory_mib.0) + 300.0;
    let dims = rank + if encode_s > 0.0 { 384.0 } else { 0.0 };
    let model_mib = n_items * dims * 4.0 * 4.0 / 1_048_576.0 + events as f64 * 24.0 / 1_048_576.0 + 300.0;
    text += &format!(
        "\n  estimate, from rates of a 2-core machine: {:.0} s (behavior {sql_s:.0}, encode at most {encode_s:.0}, factorize {factorize_s:.0}), memory at most {:.1} GiB\n",
        sql_s + encode_s + factorize_s + 10.0,
        sql_mib.max(model_mib) / 1024.0
    );
    Ok(text)
}
