//! How the night went: its heading, warnings, the gate, what was read, what it cost.

use std::collections::BTreeMap;

use crate::gate::Finding;
use crate::publish::{Rows, State};

use super::Facts;
use super::html::{Cell, Html, Table};
use super::words::{bytes, count, decimal, interval, moment, number, percent, seconds};

/// The run, what became of it, and the figures that are asked for first.
pub(super) fn header(facts: &Facts) -> Html {
    let manifest = &facts.manifest;
    let (state, meaning) = match manifest.state {
        State::Published => ("published", "readers load these lists, or have loaded them"),
        State::Refused => ("refused", "the gate kept these lists from readers"),
        State::Held => ("held", "complete, but of an earlier night than readers have"),
    };
    let said = Html::text(format!("Night of {}: ", manifest.date))
        .and(Html::element("strong", "", Html::text(state)))
        .and(Html::text(format!(", {meaning}. Finished {}.", moment(&manifest.finished_at))));
    let tonight = facts.nights.last();
    let mut figures = Html::default();
    let mut figure = |name: &str, value: String, more: String| {
        let inner = Html::element("dt", "", Html::text(name))
            .and(Html::element("dd", "", Html::text(value)))
            .and(Html::element("dd", "more", Html::text(more)));
        figures.add(Html::element("div", "", inner));
    };
    let lists = manifest.tables.get("recommendations").map_or(0, |table| table.rows);
    if let Some(users) = tonight.and_then(|night| night.users) {
        let rows = lists as f64 / users.max(1) as f64;
        figure("users with a list", count(users), format!("{rows:.1} rows each"));
    }
    if let Some(night) = tonight.filter(|night| !night.metric.is_empty()) {
        let ends = night.interval.map_or(String::new(), interval);
        figure(&format!("fused {}", night.metric), decimal(night.value), ends);
    }
    figure(
        "events that count",
        count(manifest.events.kept),
        format!("of {} read", count(manifest.events.read)),
    );
    let elapsed: u64 = manifest.stages.iter().map(|stage| stage.elapsed_ms).sum();
    let memory = match manifest.peak_memory_bytes {
        0 => String::new(),
        peak => format!("{} of memory at the most", bytes(peak)),
    };
    figure("time", seconds(elapsed), memory);
    let inner = Html::element("h1", "", Html::text(&manifest.run_id))
        .and(Html::element("p", "", said))
        .and(Html::element("dl", "", figures));
    Html::element("header", "", inner)
}

/// Limits that do not hold, and what the run warns of.
pub(super) fn warnings(facts: &Facts) -> Html {
    let broken: Vec<&Finding> = facts.findings.iter().filter(|finding| !finding.holds).collect();
    let mut items = Html::default();
    for finding in &broken {
        let word = if finding.accepted { "Accepted" } else { "Broken limit" };
        items.add(item(if finding.accepted { "accepted" } else { "broken" }, word, &finding.to_string()));
    }
    for warning in &facts.manifest.warnings {
        // What the gate let through is said above.
        if !warning.starts_with("the gate let through ") {
            items.add(item("warning", "Warning", warning));
        }
    }
    let mut section = Html::default();
    if items == Html::default() {
        section.add(Html::paragraph("No warnings."));
    } else {
        section.add(Html::element("ul", "warnings", items));
    }
    section.and(Html::paragraph(judgement(facts, broken.len())))
}

fn item(class: &'static str, word: &str, text: &str) -> Html {
    let inner = Html::element("strong", "", Html::text(word)).and(Html::raw(" ")).and(Html::text(text));
    Html::element("li", class, inner)
}

fn judgement(facts: &Facts, n_broken: usize) -> String {
    let n = facts.findings.len();
    if n == 0 {
        return "The gate found nothing to judge.".to_owned();
    }
    let with = match &facts.compared_with {
        Some(run) => format!("compared with {run}"),
        None => "with nothing to compare: absolute limits only".to_owned(),
    };
    match n_broken {
        0 => format!("All {n} limits of the gate hold, {with}."),
        _ => format!("{n_broken} of the gate's {n} limits do not hold, {with}."),
    }
}

/// Input files, and what became of their rows.
pub(super) fn read(facts: &Facts) -> Html {
    let manifest = &facts.manifest;
    let mut section = Html::default();
    let mut inputs: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for file in &manifest.inputs {
        let input = inputs.entry(&file.input).or_default();
        *input = (input.0 + 1, input.1 + file.rows, input.2 + file.size);
    }
    let mut table = Table::new("Input files", &["input", "files", "rows in them", "size"]);
    for (input, (files, rows, size)) in inputs {
        table.row(vec![
            Cell::text(input),
            Cell::figure(count(files)),
            Cell::figure(count(rows)),
            Cell::figure(bytes(size)),
        ]);
    }
    if !table.is_empty() {
        section.add(table.html());
    }
    let total = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
    let mut table = Table::new(
        "Rows: read = kept + rejected + excluded",
        &["input", "read", "kept", "rejected", "excluded"],
    );
    for (name, rows) in [("events", &manifest.events), ("items", &manifest.items)] {
        table.row(vec![
            Cell::text(name),
            Cell::figure(count(rows.read)),
            Cell::figure(count(rows.kept)),
            Cell::figure(count(total(&rows.rejected))),
            Cell::figure(count(total(&rows.excluded))),
        ]);
    }
    section.add(table.html());
    let mut table =
        Table::new("Rejected and excluded by reason", &["reason", "input", "outcome", "rows", "of all read"]);
    for (name, rows) in [("events", &manifest.events), ("items", &manifest.items)] {
        reasons(&mut table, name, "rejected", rows, &rows.rejected);
        reasons(&mut table, name, "excluded", rows, &rows.excluded);
    }
    if table.is_empty() {
        section.side().and(Html::paragraph("No row was rejected or excluded."))
    } else {
        section.and(table.html()).side()
    }
}

fn reasons(table: &mut Table, input: &str, what: &str, rows: &Rows, counts: &BTreeMap<String, u64>) {
    let mut counts: Vec<(&String, &u64)> = counts.iter().filter(|(_, n)| **n > 0).collect();
    counts.sort_by_key(|(reason, n)| (std::cmp::Reverse(**n), *reason));
    for (reason, n) in counts {
        table.row(vec![
            Cell::text(reason),
            Cell::text(input),
            Cell::text(what),
            Cell::figure(count(*n)),
            Cell::figure(percent(*n as f64 / rows.read.max(1) as f64)),
        ]);
    }
}

/// Stages with what they took, then the tables that were written.
pub(super) fn cost(facts: &Facts) -> Html {
    let manifest = &facts.manifest;
    let longest = manifest.stages.iter().map(|stage| stage.elapsed_ms).max().unwrap_or(0).max(1) as f64;
    let mut table = Table::new(
        "Stages in the order they ran",
        &["stage", "time", "processor", "peak memory", "read", "written", "reused from"],
    );
    let known = |value: u64, text: fn(u64) -> String| match value {
        0 => "–".to_owned(),
        value => text(value),
    };
    for stage in &manifest.stages {
        table.row(vec![
            Cell::text(&stage.name),
            Cell::bar(seconds(stage.elapsed_ms), stage.elapsed_ms as f64 / longest),
            Cell::figure(known(stage.cost.cpu_ms, seconds)),
            Cell::figure(known(stage.cost.peak_memory_bytes, bytes)),
            Cell::figure(known(stage.cost.read_bytes, bytes)),
            Cell::figure(known(stage.cost.written_bytes, bytes)),
            Cell::text(stage.reused_from.as_deref().unwrap_or("")),
        ]);
    }
    let mut section = Html::default();
    if table.is_empty() {
        section.add(Html::paragraph("No stage is on record."));
    } else {
        section.add(table.html());
    }
    let mut table = Table::new("Tables", &["table", "rows", "size", "files"]);
    for (name, record) in &manifest.tables {
        table.row(vec![
            Cell::text(name),
            Cell::figure(count(record.rows)),
            Cell::figure(bytes(record.bytes)),
            Cell::figure(count(record.files)),
        ]);
    }
    if table.is_empty() { section } else { section.and(table.html()).side() }
}

/// Every limit of the gate: volumes, coverage, overlap, drift.
pub(super) fn gate(facts: &Facts) -> Html {
    let mut table = Table::new(
        "Limits of the gate",
        &["limit", "state", "measured", "tonight", "before", "allowed", "key of the job"],
    );
    for finding in &facts.findings {
        let (class, word) = match (finding.holds, finding.accepted) {
            (true, _) => ("", "holds"),
            (false, true) => ("accepted", "accepted"),
            (false, false) => ("broken", "broken"),
        };
        let allowed = match (finding.least, finding.most) {
            (Some(least), _) => format!("at least {}", number(least)),
            (_, Some(most)) => format!("at most {}", number(most)),
            _ => String::new(),
        };
        table.marked(
            class,
            vec![
                Cell::text(&finding.name),
                Cell::text(word),
                Cell::text(&finding.what),
                Cell::figure(number(finding.value)),
                Cell::figure(finding.before.map_or(String::new(), number)),
                Cell::figure(allowed),
                Cell::text(&finding.key),
            ],
        );
    }
    let with = match &facts.compared_with {
        Some(run) => format!("Compared with {run}."),
        None => "There was no run to compare with, so only absolute limits were looked at.".to_owned(),
    };
    let section = Html::paragraph(with);
    if table.is_empty() { section } else { section.and(table.html()) }
}
