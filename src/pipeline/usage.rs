//! What a stage costs the machine, as the system tells it; 0 where it does not tell.

use std::fs;

use crate::publish::Cost;

use super::publish::peak_memory_bytes;

/// The process's consumption so far.
pub(super) struct Usage {
    cpu_ms: u64,
    read_bytes: u64,
    written_bytes: u64,
}

impl Usage {
    /// Begins to watch: what comes after is one stage's.
    pub(super) fn begin() -> Self {
        // Forgets the highest memory so far. Where that is not allowed, a stage's peak is the run's until then.
        let _ = fs::write("/proc/self/clear_refs", "5");
        Self::now()
    }

    fn now() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The program's name, in parentheses, may hold anything; times are the 12th and 13th word after it.
        let words: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = words.iter().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
        let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
        let bytes = |name: &str| {
            let line = io.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
        };
        Self { cpu_ms: ticks * MS_A_TICK, read_bytes: bytes("rchar:"), written_bytes: bytes("wchar:") }
    }

    /// What was used since.
    pub(super) fn since(&self) -> Cost {
        let now = Self::now();
        Cost {
            cpu_ms: now.cpu_ms.saturating_sub(self.cpu_ms),
            read_bytes: now.read_bytes.saturating_sub(self.read_bytes),
            written_bytes: now.written_bytes.saturating_sub(self.written_bytes),
            peak_memory_bytes: peak_memory_bytes(),
        }
    }
}

/// Linux tells programs of hundredths of a second.
const MS_A_TICK: u64 = 10;
