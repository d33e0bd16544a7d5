//! Transfers of files.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use wherry_buildkit::pb::services::{Packet, PacketType, Stat};
use wherry_buildkit::session::{FileTarget, Session, Sessions, SyncOptions};

use crate::client::{Client, packet};

fn context() -> SyncOptions {
    SyncOptions { name: "context".into(), ..SyncOptions::default() }
}

async fn sync(session: &Session, to: &Path) -> Result<usize, wherry_buildkit::session::Error> {
    session.sync_to_folder(&context(), File::open(to).unwrap().into(), (), |_| {}).await
}

/// Everything of a folder that must survive a transfer.
fn picture(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_string();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else if meta.is_file() {
                format!("{:?} {} names", fs::read(&path).unwrap(), meta.nlink())
            } else {
                String::new()
            };
            let time = format!("{}.{}", meta.mtime(), meta.mtime_nsec());
            found.insert(name, format!("{:o} {time} {content}", meta.mode()));
            if meta.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_becomes_what_the_client_has_and_only_changes_travel() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (from.path(), to.path());
    fs::create_dir_all(a.join("sub/deep")).unwrap();
    fs::create_dir(a.join("closed")).unwrap();
    fs::write(a.join("sub/deep/file"), "deep").unwrap();
    fs::write(a.join("big"), vec![7; 3 << 20]).unwrap();
    fs::write(a.join("sub.txt"), "sorts between").unwrap();
    fs::write(a.join("empty"), "").unwrap();
    fs::write(a.join("naïve ✓"), "name").unwrap();
    fs::hard_link(a.join("big"), a.join("sub/same")).unwrap();
    symlink("../../etc/passwd", a.join("sub/link")).unwrap();
    fs::set_permissions(a.join("empty"), Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(a.join("closed"), Permissions::from_mode(0o500)).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, a.join("fifo"), rustix::fs::FileType::Fifo, 0o640.into(), 0)
        .unwrap();
    // What was there before and is of another kind, or not listed.
    fs::create_dir_all(b.join("big/old")).unwrap();
    fs::write(b.join("sub"), "was a file").unwrap();
    fs::write(b.join("stale"), "x").unwrap();

    let sessions = Arc::new(Sessions::default());
    let client = Client::offering(a);
    let (session, task) = client.open(&sessions, "s").await;
    assert_eq!(sync(&session, b).await.unwrap(), 11);
    assert_eq!(picture(b), picture(a));
    assert_eq!(client.asked.swap(0, Ordering::Relaxed), 5, "a hard link and what is no file has no bytes");
    assert!(fs::symlink_metadata(b.join("fifo")).unwrap().file_type().is_fifo());

    let inode = fs::metadata(b.join("sub.txt")).unwrap().ino();
    fs::write(a.join("sub/deep/file"), "changed").unwrap();
    fs::remove_file(a.join("empty")).unwrap();
    fs::remove_dir(a.join("closed")).unwrap();
    sync(&session, b).await.unwrap();
    assert_eq!(picture(b), picture(a));
    assert_eq!(client.asked.load(Ordering::Relaxed), 1, "one file has changed");
    assert_eq!(fs::metadata(b.join("sub.txt")).unwrap().ino(), inode, "what has not changed is not touched");

    task.abort();
    session.ended().await;
    assert!(sync(&session, b).await.is_err());
}

fn stat(path: &str, mode: u32) -> Packet {
    let stat = Stat { path: path.into(), mode, ..Stat::default() };
    Packet { stat: Some(stat), ..packet(PacketType::Stat) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_lists_are_refused_and_nothing_is_written_elsewhere() {
    const DIR: u32 = (1 << 31) | 0o755;
    const LINK: u32 = (1 << 27) | 0o777;
    let link = |path: &str, to: &str| {
        let mut packet = stat(path, LINK);
        packet.stat.as_mut().unwrap().linkname = to.into();
        packet
    };
    let hard_link = |path: &str, to: &str| {
        let mut packet = stat(path, 0o644);
        packet.stat.as_mut().unwrap().linkname = to.into();
        packet
    };
    let data = |id: u32, data: &'static [u8]| Packet {
        id,
        data: Bytes::from_static(data),
        ..packet(PacketType::Data)
    };
    let end = || packet(PacketType::Stat);
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    for (what, script) in [
        ("a way up", vec![stat("../up", 0o644)]),
        ("an absolute name", vec![stat("/tmp/x", 0o644)]),
        ("a way up within", vec![stat("a", DIR), stat("a/../../up", 0o644)]),
        (
            "through a link",
            vec![link("l", target), stat("l/file", 0o644), end(), data(1, b"x"), data(1, b"")],
        ),
        ("a folder that became a link", vec![stat("d", DIR), link("d", target), stat("d/x", 0o644)]),
        ("below what is not there", vec![stat("none/x", 0o644)]),
        ("out of order", vec![stat("b", 0o644), stat("a", 0o644)]),
        ("a hard link outside", vec![hard_link("h", "../../etc/passwd"), end()]),
        ("a hard link through a link", vec![hard_link("h", "l/passwd"), link("l", "/etc"), end()]),
        ("bytes that nobody asked for", vec![data(3, b"x")]),
        ("an unknown kind", vec![stat("k", (1 << 31) | (1 << 27))]),
        ("an end too early", vec![packet(PacketType::Fin)]),
        ("an error", vec![Packet { data: Bytes::from_static(b"no"), ..packet(PacketType::Err) }]),
    ] {
        let to = tempfile::tempdir().unwrap();
        let sessions = Arc::new(Sessions::default());
        let client = Arc::new(Client { script, ..Client::default() });
        let (session, task) = client.open(&sessions, "s").await;
        let refused =
            tokio::time::timeout(std::time::Duration::from_secs(10), sync(&session, to.path())).await;
        assert!(refused.unwrap_or_else(|_| panic!("{what}: hangs")).is_err(), "{what}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{what}");
        task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_files_secrets_and_results() {
    let from = tempfile::tempdir().unwrap();
    fs::write(from.path().join("Real"), "FROM x").unwrap();
    symlink("Real", from.path().join("Dockerfile")).unwrap();
    let sessions = Arc::new(Sessions::default());
    let client = Client::offering(from.path());
    let (session, _task) = client.open(&sessions, "s").await;
    let mut bytes = 0;
    let files = session.sync_to_memory(&context(), |n| bytes = n).await.unwrap();
    assert_eq!(files.get("Dockerfile"), Some(b"FROM x".as_slice()));
    assert_eq!(files.get("nothere"), None);
    assert!(bytes > 6);

    assert_eq!(session.secret("known").await.unwrap().as_deref(), Some(b"hidden".as_slice()));
    assert_eq!(session.secret("other").await.unwrap(), None);
    assert!(session.has_agent("known").await.unwrap().is_ok());
    assert!(session.has_agent("default").await.unwrap().is_err());
    let (mut step, ours) = tokio::net::UnixStream::pair().unwrap();
    let forwarded = session.clone();
    let forwarding = tokio::spawn(async move { forwarded.forward_agent("known", ours).await });
    step.write_all(b"sign this").await.unwrap();
    step.shutdown().await.unwrap();
    let mut answer = String::new();
    step.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "sign this");
    forwarding.await.unwrap().unwrap();

    let (out, mut uploaded) = mpsc::channel(8);
    session.upload("/stdin", out).await.unwrap();
    let mut text = Vec::new();
    while let Some(piece) = uploaded.recv().await {
        text.extend_from_slice(&piece);
    }
    assert_eq!(text, b"sent once");
    assert_eq!(
        session.credentials("r").await.unwrap_err().to_string(),
        "method /moby.filesync.v1.Auth/Credentials not supported by the client"
    );

    let (pieces, receiver) = mpsc::channel(1);
    let target = FileTarget::default();
    let sending = session.send_file(&target, receiver);
    let writing = async {
        for _ in 0..40 {
            pieces.send(Ok(Bytes::from(vec![9; 1 << 16]))).await.unwrap();
        }
        drop(pieces);
    };
    let (sent, ()) = tokio::join!(sending, writing);
    sent.unwrap();
    assert_eq!(client.received.lock().unwrap().len(), 40 << 16);
}
