//! A night on one page: what people look at when they ask how it went.
//!
//! In: a run's manifest, and what its tables and those of earlier nights hold, as [`Facts`]. Out: one HTML
//! document as a string. It stands on its own: no script, no font, no picture, nothing from a network (its
//! own policy forbids all of it), style sheet and plots inside. It follows the reader's light or dark
//! setting, prints, and is as wide as the screen from a phone on.
//!
//! Order: what is to be worried about comes first, sample lists last. Every plot has its figures in a table or in
//! words beside it, and nothing is said by colour alone. Whatever comes from the shop gets into the page through
//! `html`'s one function that escapes it. Same facts, same bytes.
//!
//! The room reads and writes no file, and asks no clock. Cost: a sort of the catalogue's items by places.

use std::collections::BTreeMap;

use plotters::prelude::DrawingAreaErrorKind;
use serde::Deserialize;

use crate::gate::Finding;
use crate::publish::Manifest;

mod html;
mod lists;
mod night;
mod plots;
mod quality;
mod spread;
mod words;

use html::Html;

/// What a page is made from.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The run's record.
    pub manifest: Manifest,
    /// The run that the gate compared it with.
    pub compared_with: Option<String>,
    /// What the gate found.
    pub findings: Vec<Finding>,
    /// The table `metrics`.
    pub metrics: Vec<Metric>,
    /// Earlier nights, oldest first, and this one last.
    pub nights: Vec<Night>,
    /// What the sources count for.
    pub learned: Learned,
    /// Items that may be listed; nothing where the catalogue's table is gone.
    pub items: Vec<Item>,
    /// Some users and the beginnings of their lists.
    pub users: Vec<User>,
}

/// A row of the table `metrics`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metric {
    /// Whose lists.
    pub system: String,
    /// What was measured.
    pub metric: String,
    /// Of how long lists.
    pub k: u32,
    /// Over whom.
    pub slice: String,
    /// The value.
    pub value: f64,
    /// Its 95 % interval.
    pub interval: Option<(f64, f64)>,
    /// The 95 % interval of what the fused lists have more, user by user.
    pub gain: Option<(f64, f64)>,
    /// How many users.
    pub users: u32,
}

/// One night among others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Night {
    /// The run.
    pub run_id: String,
    /// Its date.
    pub date: String,
    /// What became of it, in a word.
    pub state: String,
    /// Events that count.
    pub events: u64,
    /// Users with a list.
    pub users: Option<u64>,
    /// The share of yesterday's first items that were listed again.
    pub overlap: Option<f64>,
    /// The key metric's name, as `ndcg@10`; empty where nothing was evaluated.
    pub metric: String,
    /// The fused lists' value of it.
    pub value: f64,
    /// Its 95 % interval.
    pub interval: Option<(f64, f64)>,
}

/// What the learn stage found, as its facts have it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Learned {
    /// Weights for everybody, by source.
    pub weights: BTreeMap<String, f64>,
    /// Weights of the segments that have their own.
    pub segments: BTreeMap<String, BTreeMap<String, f64>>,
    /// Weights that the job gives, so that nothing was learned.
    pub given: BTreeMap<String, f64>,
    /// Users learned from.
    pub users: u64,
    /// The length of lists whose NDCG was made as large as it gets.
    pub k: u64,
    /// The fused NDCG, on users not learned from.
    pub ndcg: Option<f64>,
    /// Each source's NDCG alone.
    pub ndcg_alone: BTreeMap<String, f64>,
    /// What fusing gains.
    pub lift: Option<Lift>,
}

/// What the fusion gains over the best single source.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Lift {
    /// That source.
    pub over: String,
    /// The gain in NDCG.
    pub ndcg: f64,
    /// The lower end of its 95 % interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// An item that may be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Rows of users' lists.
    pub places: u32,
    /// Users who turned to it, where that is known.
    pub users: Option<u32>,
}

/// A user and the beginning of the list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct User {
    /// The id.
    pub id: String,
    /// What is known of the user, as name and value.
    pub profile: Vec<(String, String)>,
    /// The rows, best first.
    pub rows: Vec<Row>,
}

/// A row of a user's list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// The place.
    pub rank: u32,
    /// The item.
    pub item: String,
    /// Its title; empty where it has none.
    pub title: String,
    /// The score.
    pub score: f64,
    /// The strongest source.
    pub source: String,
    /// Why it is listed.
    pub reason: String,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A plot could not be drawn.
    #[error("cannot draw the plot of {plot}")]
    Plot {
        /// Of what.
        plot: &'static str,
        /// What the plotting crate reports.
        #[source]
        source: DrawingAreaErrorKind<std::io::Error>,
    },
}

/// Nothing is fetched and nothing is run, whatever gets into the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The page.
///
/// # Errors
/// If a plot cannot be drawn.
pub fn page(facts: &Facts) -> Result<String, Error> {
    let sections = [
        ("warnings", "Warnings", night::warnings(facts)),
        ("read", "Read and rejected", night::read(facts)),
        ("cost", "Time and memory", night::cost(facts)),
        ("metrics", "What the lists are worth", quality::metrics(facts)?),
        ("nights", "Night after night", quality::nights(facts)?),
        ("coverage", "Catalogue and popularity", lists::coverage(facts)?),
        ("drift", "Compared with the night before", night::gate(facts)),
        ("weights", "What the sources count for", quality::weights(facts)),
        ("users", "Some users' lists", lists::users(facts)),
    ];
    let (mut links, mut body) = (Html::default(), Html::default());
    for (id, title, section) in sections {
        let link = Html::with("a", &[("href", &format!("#{id}"))], Html::text(title));
        links.add(Html::element("li", "", link));
        let inner = Html::element("h2", "", Html::text(title)).and(section);
        body.add(Html::with("section", &[("id", id)], inner));
    }
    let links = Html::with("nav", &[("aria-label", "Sections")], Html::element("ul", "", links));
    let run = &facts.manifest.run_id;
    let head = Html::raw("<meta charset=\"utf-8\">\n")
        .and(Html::raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"))
        .and(Html::raw("<meta name=\"color-scheme\" content=\"light dark\">\n"))
        .and(Html::raw("<meta http-equiv=\"Content-Security-Policy\" content=\""))
        .and(Html::text(POLICY))
        .and(Html::raw("\">\n"))
        .and(Html::element("title", "", Html::text(format!("{run} · Lamplighter"))))
        .and(Html::element("style", "", Html::raw(include_str!("report.css"))));
    let made = format!("Lamplighter {}, job {}", facts.manifest.lamplighter, facts.manifest.job);
    let main = night::header(facts).and(links).and(Html::element("main", "", body)).and(Html::element(
        "footer",
        "",
        Html::text(made),
    ));
    let page = Html::raw("<!doctype html>\n<html lang=\"en\">\n")
        .and(Html::element("head", "", head))
        .and(Html::element("body", "", main))
        .and(Html::raw("\n</html>\n"));
    Ok(page.into_string())
}

#[cfg(test)]
mod tests;
