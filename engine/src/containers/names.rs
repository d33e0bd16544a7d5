//! Names for containers that nobody named: a character and the surname of somebody who knew the sea, the sky or numbers.

use super::table::Containers;
use crate::error::Error;

const CHARACTERS: [&str; 60] = [
    "able", "agile", "amber", "ample", "apt", "balmy", "brave", "breezy", "bright", "brisk", "calm",
    "candid", "cheery", "civil", "clear", "clever", "cosy", "crisp", "deft", "eager", "early", "easy",
    "fair", "fleet", "fond", "frank", "fresh", "gentle", "glad", "hale", "handy", "hardy", "honest", "keen",
    "kind", "lively", "loyal", "lucid", "mellow", "merry", "mild", "modest", "neat", "nimble", "patient",
    "plucky", "prompt", "proud", "quick", "quiet", "ready", "sober", "spry", "steady", "sunny", "swift",
    "tidy", "trusty", "warm", "witty",
];

const SURNAMES: [&str; 60] = [
    "agnesi",
    "amundsen",
    "anning",
    "aryabhata",
    "banneker",
    "baret",
    "bassi",
    "beaufort",
    "bering",
    "bowditch",
    "brahe",
    "cannon",
    "cassini",
    "celsius",
    "cook",
    "cousteau",
    "dias",
    "dumont",
    "earle",
    "encke",
    "eratosthenes",
    "fermat",
    "flinders",
    "franklin",
    "galton",
    "gellibrand",
    "germain",
    "gilbert",
    "halley",
    "harrison",
    "herschel",
    "hipparchus",
    "humboldt",
    "ibnmajid",
    "kepler",
    "kovalevskaya",
    "lagrange",
    "leavitt",
    "legendre",
    "lepaute",
    "maury",
    "mercator",
    "mitchell",
    "nansen",
    "noether",
    "nunes",
    "polo",
    "ptolemy",
    "ross",
    "scoresby",
    "shackleton",
    "slocum",
    "somerville",
    "tasman",
    "tharp",
    "thales",
    "vespucci",
    "waldseemuller",
    "wright",
    "zhenghe",
];

/// So many names are tried before a digit is added.
const PLAIN_TRIES: u32 = 6;
const TRIES: u32 = 64;

/// Reserves a free name for `id` and returns it.
///
/// # Errors
/// The last clash, when chance is against us beyond belief.
pub(super) fn reserve_random(containers: &Containers, id: &str) -> Result<String, Error> {
    let mut attempt = 0;
    loop {
        let name = random(attempt >= PLAIN_TRIES);
        match containers.reserve_name(&name, id) {
            Ok(()) => return Ok(name),
            Err(error) if attempt == TRIES => return Err(error),
            Err(_) => attempt += 1,
        }
    }
}

fn random(with_digit: bool) -> String {
    let seed = crate::id::hex64();
    let number = |from: usize| {
        seed.get(from..from + 8).and_then(|digits| usize::from_str_radix(digits, 16).ok()).unwrap_or_default()
    };
    let pick =
        |list: &[&'static str], from| list.get(number(from) % list.len().max(1)).copied().unwrap_or_default();
    let (character, surname) = (pick(&CHARACTERS, 0), pick(&SURNAMES, 8));
    let digit = if with_digit { (number(16) % 10).to_string() } else { String::new() };
    format!("{character}_{surname}{digit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_names_are_valid_and_avoid_those_in_use() {
        let containers = Containers::default();
        let mut taken = std::collections::HashSet::new();
        for number in 0..2000 {
            let name = reserve_random(&containers, &number.to_string()).unwrap();
            assert!(super::super::validate::check_name(&name).is_ok(), "{name}");
            let form = name.trim_end_matches(|c: char| c.is_ascii_digit());
            let (left, right) = form.split_once('_').unwrap();
            assert!(left.bytes().chain(right.bytes()).all(|b| b.is_ascii_lowercase()), "{name}");
            assert!(taken.insert(name));
        }
    }
}
