use super::*;
use crate::{Framing, Options, Writer};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::Write;

const ALL: Query =
    Query { stdout: true, stderr: true, since_ns: None, until_ns: None, tail: None, follow: false };

fn options(path: &Path, max_bytes: Option<u64>, max_files: u32) -> Options {
    Options { path: path.to_owned(), max_bytes, max_files, compress: false, attributes: BTreeMap::new() }
}

fn texts(reader: &mut Reader) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        texts.push(String::from_utf8(entry.text.to_vec()).unwrap());
    }
    texts
}

fn read(path: &Path, query: Query) -> Vec<String> {
    texts(&mut Reader::open(path, query).unwrap())
}

/// Lines `from..to` in files of about 5 entries.
fn numbered(path: &Path, from: u32, to: u32, max_files: u32) -> Writer {
    let mut writer = Writer::open(options(path, Some(350), max_files)).unwrap();
    for number in from..to {
        let stream = if number % 2 == 0 { Stream::Stdout } else { Stream::Stderr };
        writer.write(stream, format!("{number}\n").as_bytes());
    }
    writer
}

fn expect(numbers: impl Iterator<Item = u32>) -> Vec<String> {
    numbers.map(|number| format!("{number}\n")).collect()
}

#[test]
fn tail_counts_back_over_rotated_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    numbered(&path, 0, 32, 100);
    assert!(std::fs::read_dir(dir.path()).unwrap().count() > 4, "the log was rotated");
    for tail in 0..40u32 {
        let query = Query { tail: Some(tail.into()), ..ALL };
        assert_eq!(read(&path, query), expect(32u32.saturating_sub(tail)..32), "tail {tail}");
    }
    assert_eq!(read(&path, ALL), expect(0..32));
    assert_eq!(
        read(&path, Query { stderr: false, tail: Some(4), ..ALL }),
        ["28\n", "30\n"],
        "counted before selected"
    );
}

#[test]
fn only_so_many_files_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    numbered(&path, 0, 100, 3);
    let mut names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["log", "log.1", "log.2"]);
    let kept = read(&path, ALL);
    assert!(kept.len() > 10 && kept == expect(100 - u32::try_from(kept.len()).unwrap()..100), "{kept:?}");
    // However many may be kept, a rotation does not look for all of them.
    numbered(&path, 100, 200, u32::MAX);
    assert!(dir.path().join("log.12").exists());
}

#[test]
fn times_select_entries() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let lines: String = (0..10)
        .map(|n| {
            format!("{{\"log\":\"{n}\\n\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:0{n}Z\"}}\n")
        })
        .collect();
    std::fs::write(&path, lines).unwrap();
    let second = |n: i64| Some(n * 1_000_000_000);
    assert_eq!(read(&path, Query { since_ns: second(7), ..ALL }), expect(7..10));
    assert_eq!(read(&path, Query { until_ns: second(2), ..ALL }), expect(0..3));
    assert_eq!(
        read(&path, Query { since_ns: second(2), until_ns: second(4), follow: true, ..ALL }),
        expect(2..5)
    );
    assert_eq!(read(&path, Query { since_ns: second(2), tail: Some(2), ..ALL }), expect(8..10));
    let mut reader = Reader::open(&path, Query { until_ns: second(2), follow: true, ..ALL }).unwrap();
    let format = Format { framing: Framing::Raw, timestamps: false, details: false };
    assert_eq!(reader.fill(&mut Vec::new(), &format, usize::MAX).unwrap(), Filled::End);
}

#[test]
fn following_survives_rotation() {
    for (burst, max_files) in [(1, 3), (4, 3), (9, 10), (30, 10), (7, 1)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut reader = Reader::open(&path, Query { follow: true, ..ALL }).unwrap();
        let mut got = texts(&mut reader);
        for round in 0..10 {
            numbered(&path, round * burst, (round + 1) * burst, max_files);
            got.extend(texts(&mut reader));
        }
        if max_files == 1 {
            // Entries in a file that is gone before it was read are lost; never twice, never torn.
            assert!(got.len() > 20 && got.is_sorted_by_key(|text| text.trim().parse::<u32>().unwrap()));
            assert_eq!(got.last().unwrap(), "69\n");
        } else {
            assert_eq!(got, expect(0..10 * burst), "bursts of {burst}");
        }
    }
}

#[test]
fn compressed_files_are_read_like_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut reader = Reader::open(&path, Query { follow: true, ..ALL }).unwrap();
    let mut late = Reader::open(&path, Query { follow: true, ..ALL }).unwrap();
    let mut got = Vec::new();
    for round in 0..8 {
        let options = Options { compress: true, ..options(&path, Some(350), 100) };
        let mut writer = Writer::open(options).unwrap();
        for number in round * 6..round * 6 + 6 {
            writer.write(Stream::Stdout, format!("{number}\n").as_bytes());
            while number % 3 == 0 && writer.compress_step() {}
        }
        got.extend(texts(&mut reader));
        if round == 0 {
            assert_eq!(texts(&mut late).len(), 6, "it stands in a file that will be compressed");
        }
    }
    let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let packed = names.filter(|name| name.to_string_lossy().ends_with(".gz")).count();
    assert!(packed > 5, "{packed} files are compressed");
    assert_eq!(got, expect(0..48));
    assert_eq!(texts(&mut late), expect(6..48));
    assert_eq!(read(&path, ALL), expect(0..48));
    for tail in [0, 1, 7, 20, 47, 48, 60u32] {
        let query = Query { tail: Some(tail.into()), ..ALL };
        assert_eq!(read(&path, query), expect(48u32.saturating_sub(tail)..48), "tail {tail}");
    }
}

#[test]
fn following_survives_truncation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut writer = Writer::open(options(&path, None, 1)).unwrap();
    let mut reader = Reader::open(&path, Query { follow: true, ..ALL }).unwrap();
    writer.write(Stream::Stdout, b"one\ntwo\n");
    assert_eq!(texts(&mut reader), ["one\n", "two\n"]);
    std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    writer.write(Stream::Stdout, b"three\n");
    assert_eq!(texts(&mut reader), ["three\n"]);
    reader.stop_following();
    let format = Format { framing: Framing::Raw, timestamps: false, details: false };
    assert_eq!(reader.fill(&mut Vec::new(), &format, 1).unwrap(), Filled::End);
}

#[test]
fn without_following_the_end_is_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut writer = numbered(&path, 0, 8, 10);
    let mut reader = Reader::open(&path, ALL).unwrap();
    for number in 8..30 {
        writer.write(Stream::Stdout, format!("{number}\n").as_bytes());
    }
    assert_eq!(texts(&mut reader), expect(0..8));
}

#[test]
fn torn_and_foreign_lines_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, "garbage\n{\"log\":\"half").unwrap();
    let mut writer = Writer::open(options(&path, None, 1)).unwrap();
    assert_eq!(read(&path, ALL), [""; 0]);
    writer.write(Stream::Stdout, b"a\n");
    std::fs::File::options()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(&[b'x'; MAX_LINE + 100_000])
        .unwrap();
    assert_eq!(read(&path, ALL), ["a\n"]);
    std::fs::File::options().append(true).open(&path).unwrap().write_all(b"\n").unwrap();
    writer.write(Stream::Stdout, b"b\n");
    assert_eq!(read(&path, ALL), ["a\n", "b\n"]);
    assert_eq!(read(&path, Query { tail: Some(1), ..ALL }), ["b\n"]);
}

#[test]
fn a_follower_sees_a_line_that_arrives_in_halves() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut file = std::fs::File::create(&path).unwrap();
    let mut reader = Reader::open(&path, Query { follow: true, ..ALL }).unwrap();
    let line = b"{\"log\":\"x\\n\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:00Z\"}\n";
    for byte in line {
        assert_eq!(texts(&mut reader), [""; 0]);
        file.write_all(&[*byte]).unwrap();
    }
    assert_eq!(texts(&mut reader), ["x\n"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_is_read_back(
        pieces in proptest::collection::vec((any::<bool>(), proptest::collection::vec(
            prop_oneof![4 => any::<u8>(), 4 => Just(b'a'), 1 => Just(b'\n'), 1 => Just(0xe2), 1 => Just(0x80)], 0..300)), 0..12),
        max_bytes in proptest::option::of(1u64..2_000),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut options = options(&path, max_bytes, 1000);
        options.attributes.insert("a<b".into(), "\"c\"\n".into());
        let mut writer = Writer::open(options).unwrap();
        let mut follower = Reader::open(&path, Query { follow: true, ..ALL }).unwrap();
        let (mut sent, mut got, mut followed) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()], 0);
        for (is_err, bytes) in &pieces {
            let stream = if *is_err { Stream::Stderr } else { Stream::Stdout };
            writer.write(stream, bytes);
            sent[usize::from(*is_err)].extend_from_slice(bytes);
            while follower.next().unwrap().is_some() {
                followed += 1;
            }
        }
        writer.finish(Stream::Stdout);
        writer.finish(Stream::Stderr);
        prop_assert_eq!(writer.dropped(), 0);
        let mut reader = Reader::open(&path, ALL).unwrap();
        let (mut count, mut last) = (0, 0);
        while let Some(entry) = reader.next().unwrap() {
            got[usize::from(entry.stream == Stream::Stderr)].extend_from_slice(entry.text);
            prop_assert_eq!(entry.attributes, br#"{"a\u003cb":"\"c\"\n"}"#);
            count += 1;
            last = last.max(entry.time_ns);
        }
        prop_assert!(last <= i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()).unwrap());
        while follower.next().unwrap().is_some() {
            followed += 1;
        }
        prop_assert_eq!(followed, count);
        // Entries are at most 16 KiB and these lines shorter, so that no character is cut apart by the log itself.
        for side in 0..2 {
            prop_assert_eq!(String::from_utf8_lossy(&got[side]), go_lossy(&sent[side]));
        }
    }

    #[test]
    fn any_bytes_in_the_file_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..500), tail in 0u64..5) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, bytes).unwrap();
        texts(&mut Reader::open(&path, Query { tail: Some(tail), since_ns: Some(0), ..ALL }).unwrap());
    }
}

/// As Go reads bytes as UTF-8, a line at a time: one replacement character for each wrong byte.
fn go_lossy(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    out
}
