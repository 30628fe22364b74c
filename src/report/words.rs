//! Figures as people read them.

/// A whole number in groups of three.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A whole number as one, a large one with one digit behind the point, others with four.
pub(super) fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        let sign = if value < 0.0 { "-" } else { "" };
        format!("{sign}{}", count(value.abs() as u64))
    } else if value.abs() >= 100.0 && value.abs() < 1e15 {
        let (whole, tenth) =
            ((value.abs() * 10.0).round() as u64 / 10, (value.abs() * 10.0).round() as u64 % 10);
        format!("{}{}.{tenth}", if value < 0.0 { "-" } else { "" }, count(whole))
    } else {
        format!("{value:.4}")
    }
}

/// Four digits in any case.
pub(super) fn decimal(value: f64) -> String {
    format!("{value:.4}")
}

pub(super) fn interval(ends: (f64, f64)) -> String {
    format!("{:.4} to {:.4}", ends.0, ends.1)
}

/// A share in percent: more digits where it is small.
pub(super) fn percent(share: f64) -> String {
    let value = 100.0 * share;
    if value == 0.0 || value.abs() >= 10.0 { format!("{value:.1} %") } else { format!("{value:.2} %") }
}

pub(super) fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1000.0)
}

pub(super) fn bytes(n: u64) -> String {
    const KIB: f64 = 1024.0;
    let n = n as f64;
    match n {
        n if n >= KIB * KIB * KIB => format!("{:.2} GiB", n / (KIB * KIB * KIB)),
        n if n >= KIB * KIB => format!("{:.1} MiB", n / (KIB * KIB)),
        n => format!("{:.1} KiB", n / KIB),
    }
}

/// A moment to the second, as the manifest has it.
pub(super) fn moment(rfc3339: &str) -> String {
    let text: String = rfc3339.chars().take(19).collect();
    format!("{} UTC", text.replace('T', " "))
}
