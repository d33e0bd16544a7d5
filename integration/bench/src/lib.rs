//! What the benches share: engines that take part, medians, and facts about the machine for their pages.

// A failed measurement ends the program; that is all there is to do.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stderr)]

pub mod client;
pub mod contestant;
pub mod memory;

use std::process::Command;

/// The middle of some numbers; NaN of none.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(middle), sorted.get(middle.wrapping_sub(1))) {
        (1, Some(one), _) => *one,
        (0, Some(one), Some(other)) => (one + other) / 2.0,
        _ => f64::NAN,
    }
}

/// Which day, which commit, how many processors and how busy: the facts that every page begins with.
#[derive(Debug)]
pub struct Facts {
    /// `2026-11-22 03:57 UTC`.
    pub date: String,
    /// The commit, shortened.
    pub commit: String,
    /// Processors.
    pub processors: usize,
    /// The load average over a minute.
    pub load: String,
}

impl Facts {
    /// As they are now.
    pub fn now() -> Facts {
        Facts {
            date: output("date", &["-u", "+%F %R UTC"]),
            commit: output("git", &["rev-parse", "--short", "HEAD"]),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            load: output("cut", &["-d ", "-f1", "/proc/loadavg"]),
        }
    }
}

/// What a program prints, without the last newline; nothing if it cannot be started.
pub fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or(String::new(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
