//! `--version`.

use crate::query::OCI_VERSION;

/// This program's version.
pub(crate) const NUMBER: &str = env!("CARGO_PKG_VERSION");

/// As runc shows it, so that who reads runc's can read ours; called by another name, it says what it is.
pub(crate) fn text(program: &str) -> String {
    let commit = option_env!("WHERRY_COMMIT").unwrap_or("unknown");
    let mut text = format!("{program} version {NUMBER}\ncommit: {commit}\nspec: {OCI_VERSION}\n");
    if program != "wherry-runtime" {
        text.push_str("implementation: wherry-runtime\n");
    }
    text
}
