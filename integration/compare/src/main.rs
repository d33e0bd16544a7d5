//! `make compare-builds`: builds each folder of `integration/dockerfiles` with our engine and with the lab's dockerd, through
//! BuildKit's door and through the classic one, and compares file systems and configurations of the images.
//!
//!   wherry-compare-builds [NAME…]      without names all of them, and the results go to integration/results/dockerfiles.md
//!
//! `DOORS=classic` or `DOORS=buildkit` asks one of them only.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for people")]
#![allow(clippy::expect_used, reason = "what fails here ends the comparison, and says why")]

mod case;
mod image;
mod page;

use std::path::Path;

use case::{Case, Door};
use wherry_tests::Host;
use wherry_tests::engine::Binary;

/// What came of one file through one door.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Same {
        files: usize,
    },
    /// Both engines refused it, with the same text.
    SameError(String),
    Different(Vec<String>),
    /// The file says that this door is not asked.
    NotAsked,
}

fn main() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let cases = Case::all(&here.join("../dockerfiles"), &wanted);
    assert!(!cases.is_empty(), "no such case: {wanted:?}");
    let reference = Binary::at(here.join("../engines/dockerd"));
    let engines = [Host::of(Binary::from_environment(), &[]), Host::of(reference, &[])];
    let versions = engines
        .each_ref()
        .map(|engine| engine.docker("version --format '{{.Server.Version}}'").ok().out().to_owned());
    let servers = engines.each_ref().map(|engine| case::serve_files(engine, here));
    for archive in case::archives(&cases) {
        for engine in &engines {
            engine.docker(&["load", "-q", "-i", &archive.display().to_string()]).ok();
        }
    }
    let mut rows = Vec::new();
    for case in &cases {
        let verdicts = Door::ALL.map(|door| compare(case, door, &engines));
        for (door, verdict) in Door::ALL.iter().zip(&verdicts) {
            page::report(&case.name, *door, verdict);
        }
        rows.push((case.name.clone(), verdicts));
    }
    drop(servers);
    engines.into_iter().for_each(Host::discard);
    let failed =
        rows.iter().flat_map(|(_, verdicts)| verdicts).filter(|v| matches!(v, Verdict::Different(_))).count();
    if wanted.is_empty() {
        let notes: Vec<_> = cases.iter().map(|case| (case.name.as_str(), case.note.as_str())).collect();
        page::write(&here.join("../results/dockerfiles.md"), &rows, &versions, &notes);
    }
    std::process::exit(i32::from(failed > 0));
}

fn compare(case: &Case, door: Door, engines: &[Host; 2]) -> Verdict {
    let wanted = std::env::var("DOORS").unwrap_or_default();
    if !case.doors.contains(&door)
        || !(wanted.is_empty() || wanted.eq_ignore_ascii_case(&format!("{door:?}")))
    {
        return Verdict::NotAsked;
    }
    let built = engines.each_ref().map(|engine| case.build(engine, door));
    match built {
        [Ok(ours), Ok(theirs)] => {
            let differences = ours.differences(&theirs);
            match differences.is_empty() {
                true => Verdict::Same { files: ours.files() },
                false => Verdict::Different(differences),
            }
        }
        [Err(ours), Err(theirs)] if ours == theirs => Verdict::SameError(ours),
        [Err(ours), Err(theirs)] => Verdict::Different(vec![format!("error: {ours:?}, dockerd: {theirs:?}")]),
        [Err(ours), Ok(_)] => Verdict::Different(vec![format!("error: {ours:?}, dockerd builds it")]),
        [Ok(_), Err(theirs)] => Verdict::Different(vec![format!("built, dockerd says {theirs:?}")]),
    }
}
