//! What is printed, and kept in `integration/results/dockerfiles.md`.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use crate::Verdict;
use crate::case::Door;

const LINES: usize = 12;

/// Prints a verdict.
pub(crate) fn report(name: &str, door: Door, verdict: &Verdict) {
    match verdict {
        Verdict::Same { files } => println!("same       {name} ({door:?}): {files} files"),
        Verdict::SameError(error) => println!("same error {name} ({door:?}): {error}"),
        Verdict::NotAsked => {}
        Verdict::Different(lines) => {
            println!("DIFFERENT  {name} ({door:?}): {} differences", lines.len());
            lines.iter().take(LINES).for_each(|line| println!("             {line}"));
        }
    }
}

/// Writes the page.
pub(crate) fn write(
    path: &Path,
    rows: &[(String, [Verdict; 2])],
    versions: &[String; 2],
    notes: &[(&str, &str)],
) {
    let mut page = String::new();
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map_or(String::new(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
    };
    let all = || rows.iter().flat_map(|(_, verdicts)| verdicts);
    let compared = all().filter(|verdict| !matches!(verdict, Verdict::NotAsked)).count();
    let same = all().filter(|v| matches!(v, Verdict::Same { .. } | Verdict::SameError(_))).count();
    // Writing to a string cannot fail.
    let _ = write!(
        page,
        "# The same Dockerfiles, built by both\n\n`make compare-builds` builds each folder of `integration/dockerfiles` with \
         wherryd {} and dockerd {}, through BuildKit's door and the classic one,\nand compares the images: names, kinds, modes, \
         owners, contents, links, extended attributes of all files, and the configuration with its history.\nTimes are not \
         compared.\n\n{}, commit {}: {} files, {compared} builds, {same} the same.\n\n| file | BuildKit | classic |\n| --- | --- \
         | --- |\n",
        versions[0],
        versions[1],
        output("date", &["-u", "+%F %R UTC"]),
        output("git", &["rev-parse", "--short", "HEAD"]),
        rows.len(),
    );
    for (name, verdicts) in rows {
        let [buildkit, classic] = verdicts.each_ref().map(cell);
        let _ = writeln!(page, "| {name} | {buildkit} | {classic} |");
    }
    for (number, (name, note)) in notes.iter().filter(|(_, note)| !note.is_empty()).enumerate() {
        let begin = if number == 0 { "\n" } else { "" };
        let _ = writeln!(page, "{begin}- {name}: {note}");
    }
    std::fs::write(path, page).expect("write the results");
}

fn cell(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Same { files } => format!("same, {files} files"),
        Verdict::SameError(error) => format!("same error: {}", error.replace('|', "\\|")),
        Verdict::NotAsked => "not asked".to_owned(),
        Verdict::Different(lines) => {
            let first = lines.first().map(|line| line.chars().take(160).collect::<String>());
            format!("**{} differences**: {}", lines.len(), first.unwrap_or_default().replace('|', "\\|"))
        }
    }
}
