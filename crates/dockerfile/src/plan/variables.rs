//! Lists of `NAME=value`.

/// The name of an entry.
pub(super) fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

/// The value of a name.
pub(super) fn get<'e>(entries: &'e [String], name: &str) -> Option<&'e str> {
    let entry = entries.iter().rfind(|entry| name_of(entry) == name)?;
    Some(entry.split_once('=').map_or("", |(_, value)| value))
}

/// Sets a value where the name stands, or at the end.
pub(super) fn set_in_place(entries: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    match entries.iter_mut().find(|known| name_of(known) == name) {
        Some(known) => *known = entry,
        None => entries.push(entry),
    }
}

/// Sets a value; its place is the end.
pub(super) fn set_last(entries: &mut Vec<String>, name: &str, value: &str) {
    entries.retain(|known| name_of(known) != name);
    entries.push(format!("{name}={value}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_places() {
        let mut entries = vec!["A=1".to_owned(), "B=2".to_owned()];
        set_in_place(&mut entries, "A", "x=y");
        set_in_place(&mut entries, "C", "");
        assert_eq!(entries, ["A=x=y", "B=2", "C="]);
        set_last(&mut entries, "A", "3");
        assert_eq!(entries, ["B=2", "C=", "A=3"]);
        assert_eq!((get(&entries, "A"), get(&entries, "C"), get(&entries, "D")), (Some("3"), Some(""), None));
    }
}
