//! Markup that data can only get into escaped.

/// Markup. Data gets into it by [`Html::text`] alone; everything else takes what is written in this program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Html(String);

impl Html {
    /// Data as text.
    pub(super) fn text(data: impl AsRef<str>) -> Self {
        let mut markup = String::with_capacity(data.as_ref().len());
        for c in data.as_ref().chars() {
            match c {
                '&' => markup.push_str("&amp;"),
                '<' => markup.push_str("&lt;"),
                '>' => markup.push_str("&gt;"),
                '"' => markup.push_str("&quot;"),
                '\'' => markup.push_str("&#39;"),
                '\n' | '\t' => markup.push(c),
                // What no page shows, and some parsers refuse.
                c if c.is_control() => markup.push('\u{fffd}'),
                c => markup.push(c),
            }
        }
        Self(markup)
    }

    /// Markup of this program's own.
    pub(super) fn raw(markup: &'static str) -> Self {
        Self(markup.to_owned())
    }

    /// A plot of this room's own; what drew it has escaped its labels.
    pub(super) fn plot(svg: String) -> Self {
        Self(svg)
    }

    /// Parts beside each other where there is room.
    pub(super) fn side(self) -> Self {
        Self::element("div", "side", self)
    }

    /// An element around other markup.
    pub(super) fn element(name: &'static str, class: &'static str, inner: Self) -> Self {
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        Self(format!("<{name}{class}>{}</{name}>", inner.0))
    }

    /// An element with other attributes, whose values are escaped.
    pub(super) fn with(name: &'static str, attributes: &[(&'static str, &str)], inner: Self) -> Self {
        let attributes: String =
            attributes.iter().map(|(name, value)| format!(" {name}=\"{}\"", Self::text(value).0)).collect();
        Self(format!("<{name}{attributes}>{}</{name}>", inner.0))
    }

    /// A paragraph of text.
    pub(super) fn paragraph(text: impl AsRef<str>) -> Self {
        Self::element("p", "", Self::text(text))
    }

    /// This, and more after it.
    pub(super) fn and(mut self, more: Self) -> Self {
        self.0.push_str(&more.0);
        self
    }

    /// More after this.
    pub(super) fn add(&mut self, more: Self) {
        self.0.push_str(&more.0);
    }

    /// The markup as it is.
    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// One cell of a table.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    /// Words, set to the left.
    Text(Html),
    /// A figure, set to the right.
    Figure(Html),
}

impl Cell {
    pub(super) fn text(data: impl AsRef<str>) -> Self {
        Self::Text(Html::text(data))
    }

    pub(super) fn figure(data: impl AsRef<str>) -> Self {
        Self::Figure(Html::text(data))
    }

    /// A figure over the interval it lies in.
    pub(super) fn interval(value: impl AsRef<str>, interval: Option<String>) -> Self {
        let mut inner = Html::text(value);
        if let Some(interval) = interval {
            inner.add(Html::raw(" ").and(Html::element("small", "", Html::text(interval))));
        }
        Self::Figure(inner)
    }

    /// A figure beside a bar of this share of the cell.
    pub(super) fn bar(value: impl AsRef<str>, share: f64) -> Self {
        let width = format!("width:{:.1}%", 100.0 * share.clamp(0.0, 1.0));
        let bar = Html::with("i", &[("style", &width)], Html::default());
        Self::Figure(Html::text(value).and(Html::element("span", "bar", bar)))
    }
}

/// Cells of so little markup stay on one line.
const SHORT: usize = 28;

/// A table with a heading a column; the first cell of a row is its heading.
pub(super) struct Table {
    caption: String,
    headings: Vec<String>,
    rows: Vec<(&'static str, Vec<Cell>)>,
}

impl Table {
    pub(super) fn new(caption: &str, headings: &[&str]) -> Self {
        let headings = headings.iter().map(|heading| (*heading).to_owned()).collect();
        Self { caption: caption.to_owned(), headings, rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(("", cells));
    }

    /// A row that stands out: its class says why.
    pub(super) fn marked(&mut self, class: &'static str, cells: Vec<Cell>) {
        self.rows.push((class, cells));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table in a box of its own, which a narrow page can move sideways.
    pub(super) fn html(self) -> Html {
        let is_figure = |column: usize| {
            self.rows.iter().any(|(_, cells)| matches!(cells.get(column), Some(Cell::Figure(_))))
        };
        let mut head = Html::default();
        for (column, heading) in self.headings.iter().enumerate() {
            let class = if is_figure(column) { "figure" } else { "words" };
            head.add(Html::with("th", &[("scope", "col"), ("class", class)], Html::text(heading)));
        }
        let mut body = Html::default();
        for (class, cells) in self.rows {
            let mut row = Html::default();
            for (column, cell) in cells.into_iter().enumerate() {
                let (class, inner) = match cell {
                    Cell::Text(inner) if inner.0.len() <= SHORT => ("words short", inner),
                    Cell::Text(inner) => ("words", inner),
                    Cell::Figure(inner) => ("figure", inner),
                };
                row.add(match column {
                    0 => Html::with("th", &[("scope", "row"), ("class", class)], inner),
                    _ => Html::element("td", class, inner),
                });
            }
            body.add(Html::element("tr", class, row));
        }
        let table = Html::element("caption", "", Html::text(&self.caption))
            .and(Html::element("thead", "", Html::element("tr", "", head)))
            .and(Html::element("tbody", "", body));
        let frame =
            [("class", "scroll"), ("tabindex", "0"), ("role", "region"), ("aria-label", &self.caption)];
        Html::with("div", &frame, Html::element("table", "", table))
    }
}
