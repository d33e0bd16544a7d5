//! One run of git(1). It ends with whoever waits for it, together with all that it has started, and of what it writes only a part
//! is kept, of errors the end, where git says why: a server decides how much it is.

use std::io::Result;
use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// So much of each stream is kept.
const KEPT_BYTES: usize = 64 << 10;

/// The group of processes that one leads which nobody has waited for yet. They are killed with this value: what is lent to them
/// goes by the number of a descriptor of ours, which may soon be something else.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // All of them may have ended by themselves.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Runs a program without input, and waits until it and what it has started have closed their outputs.
///
/// # Errors
/// It cannot be started, or read from.
pub(super) async fn output(mut command: Command) -> Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    // Dropped before the child is: no other group can have its number until the leader has been waited for.
    let mut group = Group(leader);
    let streams = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = tokio::try_join!(beginning(streams.0), end(streams.1))?;
    let status = child.wait().await?;
    group.0 = None;
    Ok(Output { status, stdout, stderr })
}

/// What a stream begins with; the rest is read and forgotten.
async fn beginning(stream: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut stream) = stream {
        (&mut stream).take(KEPT_BYTES as u64).read_to_end(&mut kept).await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    }
    Ok(kept)
}

/// What a stream ends with.
async fn end(stream: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut stream) = stream {
        let mut chunk = vec![0; KEPT_BYTES];
        while let length @ 1.. = stream.read(&mut chunk).await? {
            kept.extend(chunk.get(..length).unwrap_or_default());
            kept.drain(..kept.len().saturating_sub(KEPT_BYTES));
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn shell(script: &str, folder: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(folder);
        command
    }

    async fn poll(what: &str, mut done: impl FnMut() -> bool) {
        for _ in 0..1000 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what} within 10 s");
    }

    #[tokio::test]
    async fn what_a_program_has_started_ends_with_who_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        // The second one is left by its leader, which is gone when the wait is called off.
        for script in ["sleep 1000 & echo $! >pid.new; mv pid.new pid; wait", "sleep 1000 & echo $! >pid"] {
            let running = tokio::spawn(output(shell(script, folder.path())));
            let file = folder.path().join("pid");
            let mut pid = String::new();
            poll("its pid", || {
                pid = std::fs::read_to_string(&file).unwrap_or_default();
                pid.ends_with('\n')
            })
            .await;
            let process = format!("/proc/{}", pid.trim());
            assert!(Path::new(&process).exists());
            running.abort();
            assert!(running.await.unwrap_err().is_cancelled());
            let is_alive = || {
                let stat = std::fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
                stat.contains("(sleep)") && !stat.contains("(sleep) Z")
            };
            poll("its end", || !is_alive()).await;
            std::fs::remove_file(file).unwrap();
        }
    }

    #[tokio::test]
    async fn of_what_it_writes_a_part_is_kept() {
        let script = "head -c 5000000 /dev/zero; head -c 5000000 /dev/zero >&2; printf why >&2; exit 3";
        let output = output(shell(script, Path::new("/"))).await.unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!((output.stdout.len(), output.stderr.len()), (64 << 10, 64 << 10));
        assert!(output.stderr.ends_with(b"why"));
    }
}
