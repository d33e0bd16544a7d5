//! `--chmod`: an octal number, or changes as chmod(1) takes them.

/// What becomes of permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum ModeChange {
    /// They become these.
    Octal(u32),
    /// One change after another.
    Symbolic(Vec<Clause>),
}

/// `who`, `+`, `-` or `=`, and bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Clause {
    /// A mask of the bits of those meant.
    who: u32,
    operation: u8,
    permissions: Vec<u8>,
}

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHERS: u32 = 0o1007;

impl ModeChange {
    /// Reads it; `None` for what is neither.
    pub(in super::super) fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
            return u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).map(Self::Octal);
        }
        let clauses = text.split(',').map(clauses).collect::<Option<Vec<_>>>()?;
        Some(Self::Symbolic(clauses.concat()))
    }

    /// The new bits of a file that has `mode`.
    pub(in super::super) fn apply(&self, mode: u32, is_folder: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(clauses) => {
                clauses.iter().fold(mode & 0o7777, |mode, clause| clause.apply(mode, is_folder))
            }
        }
    }
}

/// `ug+rw-x`: one `who` and several changes.
fn clauses(text: &str) -> Option<Vec<Clause>> {
    let at = text.find(['+', '-', '='])?;
    let (who, mut rest) = text.split_at(at);
    let mask = who.bytes().try_fold(0, |mask, letter| match letter {
        b'u' => Some(mask | USER),
        b'g' => Some(mask | GROUP),
        b'o' => Some(mask | OTHERS),
        b'a' => Some(mask | USER | GROUP | OTHERS),
        _ => None,
    })?;
    let who = if who.is_empty() { USER | GROUP | OTHERS } else { mask };
    let mut found = Vec::new();
    while let Some((operation, tail)) = rest.split_at_checked(1) {
        let end = tail.find(['+', '-', '=']).unwrap_or(tail.len());
        let (permissions, next) = tail.split_at(end);
        if !permissions.bytes().all(|b| b"rwxXstugo".contains(&b)) {
            return None;
        }
        found.push(Clause {
            who,
            operation: *operation.as_bytes().first()?,
            permissions: permissions.into(),
        });
        rest = next;
    }
    Some(found)
}

impl Clause {
    fn apply(&self, mode: u32, is_folder: bool) -> u32 {
        let spread = |bits: u32| (bits & 7) * 0o111;
        let bits = self.permissions.iter().fold(0, |bits, letter| {
            bits | match letter {
                b'r' => 0o444,
                b'w' => 0o222,
                b'x' => 0o111,
                b'X' if is_folder || mode & 0o111 != 0 => 0o111,
                b's' => 0o6000,
                b't' => 0o1000,
                b'u' => spread(mode >> 6),
                b'g' => spread(mode >> 3),
                b'o' => spread(mode),
                _ => 0,
            }
        }) & self.who;
        match self.operation {
            b'+' => mode | bits,
            b'-' => mode & !bits,
            // As with chmod(1), a folder keeps the special bits that are not named.
            _ if is_folder => (mode & !(self.who & 0o777)) | bits,
            _ => (mode & !self.who) | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_changed_as_chmod_does() {
        for (change, mode, is_folder, expect) in [
            ("755", 0o600, false, 0o755),
            ("4711", 0o600, false, 0o4711),
            ("u+x", 0o644, false, 0o744),
            ("go-rwx,u=rw", 0o755, false, 0o600),
            ("a+X", 0o644, false, 0o644),
            ("a+X", 0o644, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("g=u", 0o640, false, 0o660),
            ("u+s,o+t", 0o755, false, 0o5755),
            ("u=rwx,g=rx,o=", 0o777, false, 0o750),
            ("ug+w-x", 0o755, false, 0o665),
        ] {
            assert_eq!(ModeChange::parse(change).unwrap().apply(mode, is_folder), expect, "{change}");
        }
        for bad in ["", "8", "99999", "z+x", "u+q", "u"] {
            assert_eq!(ModeChange::parse(bad), None, "{bad}");
        }
    }
}
