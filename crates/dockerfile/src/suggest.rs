//! "Did you mean …?": the nearest of known words.

/// Words that differ in more than two letters are not near.
const TOO_FAR: usize = 3;

/// The option nearest to `word`; none if nothing is near, or if the word is one of them.
pub(crate) fn nearest<S: AsRef<str>>(word: &str, options: &[S]) -> Option<String> {
    let options: Vec<&str> = options.iter().map(AsRef::as_ref).collect();
    if options.contains(&word) {
        return None;
    }
    let near = options.into_iter().map(|option| (distance(word, option), option));
    let best = near.filter(|(distance, _)| *distance < TOO_FAR).min_by_key(|(distance, _)| *distance);
    best.map(|(_, option)| option.to_owned())
}

/// How many letters must be put in, taken out or changed to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (line, from) in a.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(line + 1);
        let pairs = row.iter().zip(row.iter().skip(1)).zip(&b);
        for ((diagonal, above), to) in pairs {
            let changed = diagonal + usize::from(from != *to);
            let left = next.last().map_or(usize::MAX, |left| left + 1);
            next.push(changed.min(above + 1).min(left));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_found() {
        let check = |word: &str, expect: Option<&str>| {
            assert_eq!(nearest(word, &["RUN", "COPY", "USER"]).as_deref(), expect, "{word}");
        };
        check("RUNN", Some("RUN"));
        check("CPY", Some("COPY"));
        check("COPY", None);
        check("FOOBAR", None);
        assert_eq!((distance("kitten", "sitting"), distance("", "abc")), (3, 3));
    }
}
