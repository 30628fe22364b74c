//! What the lists are worth, tonight and on earlier nights, and which sources they owe it to.

use std::collections::BTreeMap;

use super::html::{Cell, Html, Table};
use super::plots::{self, Mark};
use super::words::{count, decimal, interval, percent};
use super::{Error, Facts, Metric};

/// The system that is published.
const FUSED: &str = "fused";
/// The metric that is looked at first.
const KEY: &str = "ndcg";

/// A plot between a heading and words that say the same.
pub(super) fn figure(svg: String, label: &str, caption: &str) -> Html {
    let plot = Html::with("div", &[("role", "img"), ("aria-label", label)], Html::plot(svg));
    let heading = Html::element("strong", "", Html::text(label));
    let caption = heading.and(Html::raw(" ")).and(Html::text(caption));
    Html::element("figure", "", plot.and(Html::element("figcaption", "", caption)))
}

/// Gains above this are told without their size: against next to nothing any share is large.
const MOST_GAIN: f64 = 10.0;

/// Whether the fused lists are clearly above or below others, by the interval of the difference user by user.
fn compared(fused: &Metric, other: &Metric) -> String {
    let Some((low, high)) = other.gain else { return String::new() };
    let word = if low > 0.0 {
        "fused is above"
    } else if high < 0.0 {
        "fused is below"
    } else {
        "no clear difference"
    };
    let gain = fused.value / other.value - 1.0;
    if gain.is_finite() && gain < MOST_GAIN {
        format!("{word} ({:+.1} %)", 100.0 * gain)
    } else {
        word.to_owned()
    }
}

struct Frame<'a> {
    rows: &'a [Metric],
    /// The shortest lists measured.
    k: u32,
}

impl<'a> Frame<'a> {
    fn of(&self, system: &str, metric: &str, k: u32, slice: &str) -> Option<&'a Metric> {
        let is_asked_for =
            |row: &&Metric| row.system == system && row.metric == metric && row.k == k && row.slice == slice;
        self.rows.iter().find(is_asked_for)
    }

    fn each<T: PartialEq>(&self, of: impl Fn(&'a Metric) -> T) -> Vec<T> {
        let mut found: Vec<T> = Vec::new();
        for row in self.rows {
            let value = of(row);
            if !found.contains(&value) {
                found.push(value);
            }
        }
        found
    }

    fn cell(&self, system: &str, metric: &str, k: u32, slice: &str) -> Cell {
        match self.of(system, metric, k, slice) {
            Some(row) => Cell::interval(decimal(row.value), row.interval.map(interval)),
            None => Cell::figure("–"),
        }
    }
}

/// Fused lists beside every baseline and source, by length, by slice, and beyond accuracy.
pub(super) fn metrics(facts: &Facts) -> Result<Html, Error> {
    let Some(k) = facts.metrics.iter().map(|row| row.k).min() else {
        return Ok(Html::paragraph(
            "Nothing was evaluated: no user had held-out items, or the job switches it off.",
        ));
    };
    let frame = Frame { rows: &facts.metrics, k };
    let systems = frame.each(|row| row.system.as_str());
    let users = frame.of(FUSED, KEY, k, "all").map_or(0, |row| row.users);
    let section = Html::paragraph(format!(
        "Lists made from the past, compared with what {} users turned to afterwards; 95 % intervals from resampled \
         users. fused is what is published; popularity and history are the baselines; the others are single sources.",
        count(users.into())
    ));
    let marks: Vec<Mark> = systems
        .iter()
        .filter_map(|system| frame.of(system, KEY, k, "all"))
        .map(|row| Mark {
            name: row.system.clone(),
            value: row.value,
            interval: row.interval,
            main: row.system == FUSED,
        })
        .collect();
    let mut parts = Html::default();
    if !marks.is_empty() {
        let label = format!("{}@{k} by system.", KEY.to_uppercase());
        let words = "The diamond is fused, circles are the others; lines are 95 % intervals.";
        parts.add(figure(plots::intervals(&marks)?, &label, words));
    }
    parts.add(systems_table(&frame, &systems));
    parts.add(lengths_table(&frame));
    parts.add(slices_table(&frame));
    parts.add(beyond_table(&frame, &systems));
    Ok(section.and(parts.side()))
}

fn systems_table(frame: &Frame, systems: &[&str]) -> Html {
    let k = frame.k;
    let caption = format!("All users, lists of {k}");
    let mut table = Table::new(&caption, &["system", "NDCG", "recall", "hit rate", "NDCG compared"]);
    for system in systems {
        let fused = frame.of(FUSED, KEY, k, "all");
        let said = match (fused, frame.of(system, KEY, k, "all")) {
            (Some(fused), Some(other)) if *system != FUSED => compared(fused, other),
            _ => String::new(),
        };
        table.marked(
            if *system == FUSED { "main" } else { "" },
            vec![
                Cell::text(*system),
                frame.cell(system, KEY, k, "all"),
                frame.cell(system, "recall", k, "all"),
                frame.cell(system, "hit_rate", k, "all"),
                Cell::text(said),
            ],
        );
    }
    table.html()
}

fn lengths_table(frame: &Frame) -> Html {
    let headings = ["length", "NDCG", "recall", "precision", "MAP", "MRR"];
    let mut table = Table::new("Fused lists by length, all users", &headings);
    for k in frame.each(|row| row.k) {
        let mut cells = vec![Cell::text(format!("first {k}"))];
        cells.extend(
            ["ndcg", "recall", "precision", "map", "mrr"].map(|metric| frame.cell(FUSED, metric, k, "all")),
        );
        table.row(cells);
    }
    table.html()
}

fn slices_table(frame: &Frame) -> Html {
    let k = frame.k;
    let caption = format!("NDCG@{k} by slice");
    let mut table = Table::new(&caption, &["slice", "users", "fused", "popularity"]);
    for slice in frame.each(|row| row.slice.as_str()) {
        let Some(fused) = frame.of(FUSED, KEY, k, slice) else { continue };
        table.row(vec![
            Cell::text(slice),
            Cell::figure(count(fused.users.into())),
            frame.cell(FUSED, KEY, k, slice),
            frame.cell("popularity", KEY, k, slice),
        ]);
    }
    table.html()
}

fn beyond_table(frame: &Frame, systems: &[&str]) -> Html {
    const BEYOND: [&str; 6] = ["coverage", "novelty", "diversity", "gini", "popularity_lift", "repeat_share"];
    let k = frame.k;
    let mut headings = vec!["system"];
    headings.extend(BEYOND.map(|name| match name {
        "popularity_lift" => "popularity lift",
        "repeat_share" => "repeat share",
        name => name,
    }));
    let mut table = Table::new(&format!("Beyond accuracy, lists of {k}"), &headings);
    for system in systems {
        let mut cells = vec![Cell::text(*system)];
        cells.extend(BEYOND.map(|metric| frame.cell(system, metric, k, "all")));
        table.marked(if *system == FUSED { "main" } else { "" }, cells);
    }
    table.html()
}

/// The key metric on this night and those before it.
pub(super) fn nights(facts: &Facts) -> Result<Html, Error> {
    let mut section = Html::default();
    let metric = facts.nights.last().map_or("", |night| night.metric.as_str());
    let same: Vec<_> =
        facts.nights.iter().filter(|night| !metric.is_empty() && night.metric == metric).collect();
    if same.len() > 1 {
        let marks: Vec<Mark> = same
            .iter()
            .enumerate()
            .map(|(at, night)| Mark {
                name: night.date.clone(),
                value: night.value,
                interval: night.interval,
                main: at + 1 == same.len(),
            })
            .collect();
        let label = format!("Fused {metric} by night.");
        let words =
            "The diamond is this run; upright lines are 95 % intervals. The axis need not begin at 0.";
        section.add(figure(plots::nights(&marks)?, &label, words));
    } else {
        section.add(Html::paragraph("There is no earlier night whose metrics could be compared."));
    }
    let heading = if metric.is_empty() { "metric".to_owned() } else { format!("fused {metric}") };
    let headings = ["run", "date", "state", "events", "users", "overlap", &heading];
    let mut table = Table::new("Nights, the latest first", &headings);
    for (at, night) in facts.nights.iter().rev().enumerate() {
        let value = match night.metric.as_str() {
            "" => Cell::figure("–"),
            name if name == metric => Cell::interval(decimal(night.value), night.interval.map(interval)),
            name => Cell::figure(format!("{name} {}", decimal(night.value))),
        };
        table.marked(
            if at == 0 { "main" } else { "" },
            vec![
                Cell::text(&night.run_id),
                Cell::text(&night.date),
                Cell::text(&night.state),
                Cell::figure(count(night.events)),
                Cell::figure(night.users.map_or("–".to_owned(), count)),
                Cell::figure(night.overlap.map_or("–".to_owned(), percent)),
                value,
            ],
        );
    }
    Ok(section.and(table.html()).side())
}

/// Each source's weight, for everybody and by segment, with what fusing gains.
pub(super) fn weights(facts: &Facts) -> Html {
    let learned = &facts.learned;
    if learned.weights.is_empty() {
        let mut table = Table::new("Weights that the job gives", &["source", "weight"]);
        let given = by_weight(&learned.given);
        for (source, weight) in given {
            table.row(vec![Cell::text(source), Cell::figure(format!("{weight:.3}"))]);
        }
        let said = Html::paragraph(
            "Nothing was learned: the job gives the weights, or nobody came back to learn from.",
        );
        return if table.is_empty() { said } else { said.and(table.html()) };
    }
    let mut said = format!("Learned from {} users by NDCG@{}.", count(learned.users), learned.k);
    if let Some(lift) = &learned.lift {
        let base = learned.ndcg_alone.get(&lift.over).copied().unwrap_or(0.0);
        said += &format!(
            " On users not learned from, fusing gains {:+.4} NDCG ({:+.4} to {:+.4}) over {} alone",
            lift.ndcg, lift.low, lift.high, lift.over
        );
        if base > 0.0 {
            said += &format!(", {:+.1} %", 100.0 * lift.ndcg / base);
        }
        said += if lift.low > 0.0 {
            ": a clear gain."
        } else if lift.high < 0.0 {
            ": a clear loss."
        } else {
            ": no clear difference."
        };
    }
    let mut headings = vec!["source".to_owned(), "NDCG alone".to_owned(), "all".to_owned()];
    headings.extend(learned.segments.keys().cloned());
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut table = Table::new("Weights, of everybody and of segments with their own", &headings);
    let most = learned.weights.values().copied().fold(1e-9, f64::max);
    for (source, weight) in by_weight(&learned.weights) {
        let shown = |weight: f64| if weight > 0.0 { format!("{weight:.3}") } else { "–".to_owned() };
        let alone = learned.ndcg_alone.get(source).map_or("–".to_owned(), |ndcg| decimal(*ndcg));
        let mut cells =
            vec![Cell::text(source), Cell::figure(alone), Cell::bar(shown(weight), weight / most)];
        let of_segments = learned.segments.values().map(|of| of.get(source).copied().unwrap_or(0.0));
        cells.extend(of_segments.map(|weight| Cell::figure(shown(weight))));
        table.row(cells);
    }
    Html::paragraph(said).and(table.html())
}

/// The heaviest first; of equal ones by name.
fn by_weight(weights: &BTreeMap<String, f64>) -> Vec<(&str, f64)> {
    let mut weights: Vec<(&str, f64)> =
        weights.iter().map(|(name, weight)| (name.as_str(), *weight)).collect();
    weights.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
    weights
}
