//! The lists themselves: how they are spread over the catalogue, and what some of them say.

use super::html::{Cell, Html, Table};
use super::quality::figure;
use super::spread::spread;
use super::words::{count, percent};
use super::{Error, Facts, User, plots};

/// How much of the catalogue is listed, and whether it is what everybody turns to anyway.
pub(super) fn coverage(facts: &Facts) -> Result<Html, Error> {
    if facts.items.is_empty() {
        return Ok(Html::paragraph("The catalogue as the run saw it is no longer there."));
    }
    let Some(spread) = spread(&facts.items) else {
        return Ok(Html::paragraph("No user has a list."));
    };
    let mut section = Html::paragraph(format!(
        "{} of {} items that may be listed are in users' lists ({}), on {} places. Gini coefficient {:.3}: 0 is equal, \
         1 is one item everywhere.",
        count(spread.listed as u64),
        count(spread.items as u64),
        percent(spread.listed as f64 / spread.items.max(1) as f64),
        count(spread.places),
        spread.gini
    ));
    let mut plots = Html::default();
    if spread.deciles.is_empty() {
        let gone = "How popular items are is no longer known: the stage that counted it is gone.";
        section.add(Html::paragraph(gone));
    } else {
        let shares: Vec<f64> = spread.deciles.iter().map(|decile| decile.0).collect();
        let words =
            "1 is the tenth of the items that most users turned to, 10 the least; dashed: all items alike.";
        plots.add(figure(plots::tenths(&shares)?, "Share of places by popularity of items.", words));
    }
    let words = format!(
        "The fewer items share the places, the lower the curve; dashed: all items alike. Gini {:.3}.",
        spread.gini
    );
    plots.add(figure(plots::lorenz(&spread.lorenz)?, "Share of places over share of items.", &words));
    let headings = ["tenth of items", "share of places", "its items that are listed"];
    let mut table = Table::new("From the most to the least popular items", &headings);
    let most = spread.deciles.iter().map(|decile| decile.0).fold(0.0, f64::max);
    for (at, (places, listed)) in spread.deciles.iter().enumerate() {
        let name = match at {
            0 => "1, most popular".to_owned(),
            9 => "10, least popular".to_owned(),
            at => (at + 1).to_string(),
        };
        table.row(vec![
            Cell::text(name),
            Cell::bar(percent(*places), *places / most),
            Cell::figure(percent(*listed)),
        ]);
    }
    if !table.is_empty() {
        plots.add(table.html());
    }
    Ok(section.and(plots.side()))
}

/// A few users, what is known of them, and the beginnings of their lists.
pub(super) fn users(facts: &Facts) -> Html {
    if facts.users.is_empty() {
        return Html::paragraph("No user has a list.");
    }
    let mut section = Html::paragraph(
        "Drawn by lot from the run's name, so that the same run always shows the same users.",
    );
    for user in &facts.users {
        section.add(Html::element("article", "", list(user)));
    }
    section
}

fn list(user: &User) -> Html {
    let mut profile = Html::default();
    for (name, value) in &user.profile {
        let inner = Html::element("dt", "", Html::text(name)).and(Html::element("dd", "", Html::text(value)));
        profile.add(Html::element("div", "", inner));
    }
    let mut section = Html::element("h3", "", Html::text(format!("User {}", user.id)));
    section.add(Html::element("dl", "profile", profile));
    let headings = ["rank", "item", "reason", "source", "score"];
    let mut table = Table::new(&format!("The list of user {} begins", user.id), &headings);
    for row in &user.rows {
        let mut item = Html::default();
        if !row.title.is_empty() {
            item.add(Html::text(&row.title).and(Html::raw(" ")));
        }
        item.add(Html::element("small", "", Html::text(&row.item)));
        table.row(vec![
            Cell::text(row.rank.to_string()),
            Cell::Text(item),
            Cell::text(&row.reason),
            Cell::text(&row.source),
            Cell::figure(format!("{:.3}", row.score)),
        ]);
    }
    section.and(table.html())
}
