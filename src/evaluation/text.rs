//! The metrics in short: a small table for people, the headline figures for the manifest.

use std::collections::BTreeMap;

use polars::prelude::{DataFrame, PolarsError};

/// The accuracy of every system at one length over one slice, a system a row, with intervals, and what the
/// fused lists have more; over all users also how much of the catalogue its lists cover and how diverse they are.
///
/// # Errors
/// If the frame is not one of this room's.
pub fn table(frame: &DataFrame, k: usize, slice: &str) -> Result<String, PolarsError> {
    const SHOWN: [&str; 3] = ["recall", "ndcg", "hit_rate"];
    const BEYOND: [&str; 2] = ["coverage", "diversity"];
    let text = |name: &str| frame.column(name)?.str().cloned();
    let (systems, metrics, slices) = (text("system")?, text("metric")?, text("slice")?);
    let ks = frame.column("k")?.u32()?.clone();
    let number = |name: &str| frame.column(name)?.f64().cloned();
    let (values, lows, highs) = (number("value")?, number("low")?, number("high")?);
    let (gains, gain_lows, gain_highs) = (number("gain")?, number("gain_low")?, number("gain_high")?);
    let users = frame.column("users")?.u32()?.clone();

    let mut order: Vec<&str> = Vec::new();
    for system in systems.iter().flatten() {
        if !order.contains(&system) {
            order.push(system);
        }
    }
    let mut counted = 0;
    let mut lines = Vec::new();
    for system in order {
        let mut line = format!("  {system:<12}");
        let row_of = |metric: &str| {
            (0..frame.height()).find(|at| {
                systems.get(*at) == Some(system)
                    && metrics.get(*at) == Some(metric)
                    && ks.get(*at) == Some(k as u32)
                    && slices.get(*at) == Some(slice)
            })
        };
        for shown in SHOWN {
            let Some(at) = row_of(shown) else { continue };
            counted = users.get(at).unwrap_or(0);
            let number = |values: &polars::prelude::Float64Chunked| values.get(at).unwrap_or(f64::NAN);
            line += &format!("  {:.4} ({:.4}-{:.4})", number(&values), number(&lows), number(&highs));
        }
        for at in BEYOND.into_iter().filter_map(row_of) {
            line += &format!("  {:<9.4}", values.get(at).unwrap_or(f64::NAN));
        }
        let gained = |at: usize| Some((gains.get(at)?, gain_lows.get(at)?, gain_highs.get(at)?));
        if let Some((gain, low, high)) = row_of("ndcg").and_then(gained) {
            line += &format!("  {gain:+.4} ({low:+.4} to {high:+.4})");
        }
        lines.push(line.trim_end().to_owned());
    }
    let mut heading = format!("  {:<12}", format!("{slice} @{k}"));
    for shown in SHOWN {
        heading += &format!("  {shown:<22}");
    }
    if slice == "all" {
        BEYOND.iter().for_each(|beyond| heading += &format!("  {beyond:<9}"));
    }
    if gains.null_count() < gains.len() {
        heading += "  fused ndcg over it";
    }
    Ok(format!("{}  {counted} users\n{}\n", heading.trim_end(), lines.join("\n")))
}

/// Tables of every length over all users, then of every other slice at the first length.
///
/// # Errors
/// If the frame is not one of this room's.
pub fn report(frame: &DataFrame, ks: &[usize]) -> Result<String, PolarsError> {
    let slices = frame.column("slice")?.str()?.clone();
    let mut others: Vec<&str> = Vec::new();
    for slice in slices.iter().flatten() {
        if slice != "all" && !others.contains(&slice) {
            others.push(slice);
        }
    }
    let all = ks.iter().map(|k| (*k, "all"));
    let of_slices = others.into_iter().flat_map(|slice| ks.first().map(|k| (*k, slice)));
    let tables: Result<Vec<String>, PolarsError> =
        all.chain(of_slices).map(|(k, slice)| table(frame, k, slice)).collect();
    Ok(tables?.join("\n") + &calibrated(frame)?)
}

/// The errors of calibrated scores, a length a row, beside those of the mean outcome; nothing where there
/// is no calibration.
fn calibrated(frame: &DataFrame) -> Result<String, PolarsError> {
    let metrics = frame.column("metric")?.str()?;
    let ks = frame.column("k")?.u32()?;
    let number = |name: &str| frame.column(name)?.f64().cloned();
    let (values, baselines) = (number("value")?, number("baseline")?);
    let (lows, highs) = (number("low")?, number("high")?);
    let mut text = String::new();
    for at in 0..frame.height() {
        let Some(metric @ ("mae" | "mse" | "rmse")) = metrics.get(at) else { continue };
        let of = |values: &polars::prelude::Float64Chunked| values.get(at).unwrap_or(f64::NAN);
        let (value, low, high, baseline) = (of(&values), of(&lows), of(&highs), of(&baselines));
        if metric == "mae" {
            text += &format!("\n  @{:<11}", ks.get(at).unwrap_or(0));
        }
        text += &format!("  {value:.4} ({low:.4}-{high:.4}) {baseline:.4}  ");
    }
    if text.is_empty() {
        return Ok(text);
    }
    let heading = format!("  {:<12}", "calibrated");
    let shown = ["mae", "mse", "rmse"].map(|metric| format!("  {metric:<22} of mean")).join("");
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    Ok(format!("\n{heading}{shown}{}\n", lines.join("\n")))
}

/// Of some systems the one whose NDCG over all users is most above the fused lists', with its gain over them, where
/// one's is above by more than the interval.
///
/// # Errors
/// If the frame is not one of this room's.
pub fn ahead(frame: &DataFrame, k: usize, among: &[&str]) -> Result<Option<(String, f64)>, PolarsError> {
    let text = |name: &str| frame.column(name)?.str().cloned();
    let (systems, metrics, slices) = (text("system")?, text("metric")?, text("slice")?);
    let ks = frame.column("k")?.u32()?;
    let (gains, highs) = (frame.column("gain")?.f64()?, frame.column("gain_high")?.f64()?);
    let is_ahead = |at: &usize| {
        let is_of = (metrics.get(*at), slices.get(*at), ks.get(*at));
        is_of == (Some("ndcg"), Some("all"), Some(k as u32))
            && systems.get(*at).is_some_and(|system| among.contains(&system))
            && highs.get(*at).is_some_and(|high| high < 0.0)
    };
    let found = (0..frame.height()).filter(is_ahead);
    let found = found.filter_map(|at| Some((systems.get(at)?.to_owned(), -gains.get(at)?)));
    Ok(found.max_by(|a, b| a.1.total_cmp(&b.1)))
}

/// Every system's metrics at one length over all users, as `system → metric@k → value`.
///
/// # Errors
/// If the frame is not one of this room's.
pub fn headline(frame: &DataFrame, k: usize) -> Result<BTreeMap<String, BTreeMap<String, f64>>, PolarsError> {
    let text = |name: &str| frame.column(name)?.str().cloned();
    let (systems, metrics, slices) = (text("system")?, text("metric")?, text("slice")?);
    let (ks, values) = (frame.column("k")?.u32()?, frame.column("value")?.f64()?);
    let mut headline: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    for at in (0..frame.height()).filter(|at| ks.get(*at) == Some(k as u32)) {
        let (Some(system), Some(metric), Some("all")) = (systems.get(at), metrics.get(at), slices.get(at))
        else {
            continue;
        };
        let value = values.get(at).unwrap_or(f64::NAN);
        headline.entry(system.to_owned()).or_default().insert(format!("{metric}@{k}"), value);
    }
    Ok(headline)
}
