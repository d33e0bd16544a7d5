use std::time::{Duration, Instant};

/// Asks until the answer is yes.
///
/// # Panics
/// After `seconds`, naming `what` was waited for.
pub fn poll(what: &str, seconds: u64, mut ask: impl FnMut() -> bool) {
    poll_value(what, seconds, || ask().then_some(()));
}

/// Asks until there is a value.
///
/// # Panics
/// After `seconds`, naming `what` was waited for.
pub fn poll_value<T>(what: &str, seconds: u64, ask: impl FnMut() -> Option<T>) -> T {
    poll_quietly(seconds, ask).unwrap_or_else(|| panic!("waited {seconds} s, in vain, for {what}"))
}

/// As [`poll_value`], but `None` after `seconds`.
pub(crate) fn poll_quietly<T>(seconds: u64, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut pause = Duration::from_millis(2);
    loop {
        match ask() {
            None if Instant::now() < deadline => {}
            answer => return answer,
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
