//! The help, laid out as runc's.

use super::catalogue::{COMMANDS, CommandText, GLOBAL};
use super::flags::{Flag, Kind};

/// The help of the whole program.
pub(crate) fn program(name: &str, version: &str) -> String {
    let commands: Vec<(String, String)> = COMMANDS
        .iter()
        .map(|command| (command.name.to_owned(), command.usage.to_owned()))
        .chain([("help, h".to_owned(), "show this, or the help of one command".to_owned())])
        .collect();
    let mut globals = options(&GLOBAL);
    globals.push(("--help, -h".to_owned(), "show help".to_owned()));
    globals.push(("--version, -v".to_owned(), "show the version".to_owned()));
    format!(
        "NAME:\n   {name} - Open Container Initiative runtime\n\n\
         Runs containers from bundles: folders with a specification, config.json, and a root file system.\n\n    \
         # {name} run [ -b bundle ] <container-id>\n\n\
         makes a container and runs its program. Without -b, the bundle is the working directory.\n\n\
         USAGE:\n   {name} [global options] command [command options] [arguments...]\n\n\
         VERSION:\n   {version}\n\n\
         COMMANDS:\n{}\n\
         GLOBAL OPTIONS:\n{}",
        table(&commands),
        table(&globals)
    )
}

/// The help of one command.
pub(crate) fn command(name: &str, command: &CommandText) -> String {
    let flags = options(command.flags);
    let mut text = format!(
        "NAME:\n   {name} {} - {}\n\nUSAGE:\n   {name} {}",
        command.name, command.usage, command.name
    );
    if !flags.is_empty() {
        text.push_str(" [command options]");
    }
    if !command.arguments.is_empty() {
        text.push(' ');
        text.push_str(command.arguments);
    }
    text.push('\n');
    if !command.description.is_empty() {
        let description = command.description.replace("{name}", name);
        text.push_str(&format!("\nDESCRIPTION:\n   {description}\n"));
    }
    if !flags.is_empty() {
        text.push_str(&format!("\nOPTIONS:\n{}", table(&flags)));
    }
    text
}

/// `--name value, -n value`, and what it does.
fn options(flags: &[Flag]) -> Vec<(String, String)> {
    let shown = flags.iter().filter(|flag| !flag.usage.is_empty());
    shown
        .map(|flag| {
            let value = if flag.kind == Kind::Switch { "" } else { " value" };
            let short = flag.short.map(|short| format!(", -{short}{value}")).unwrap_or_default();
            let default = flag.default.map(|default| format!(" (default: {default})")).unwrap_or_default();
            (format!("--{}{value}{short}", flag.name), format!("{}{default}", flag.usage))
        })
        .collect()
}

fn table(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    rows.iter().map(|(left, right)| format!("   {left:width$}  {right}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::find;

    #[test]
    fn a_command() {
        let text = super::command("box", find("list").unwrap());
        assert_eq!(
            text,
            "NAME:\n   box list - list the containers under --root\n\nUSAGE:\n   box list [command options]\n\nOPTIONS:\n   \
             --format value, -f value  table or json (default: \"table\")\n   --quiet, -q               ids only\n"
        );
    }
}
