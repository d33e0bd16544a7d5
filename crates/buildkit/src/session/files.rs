//! Files from and to the client.

use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc;

use super::{Error, Session};
use crate::grpc::{Reader, Status, Writer};
use crate::pb::BytesMessage;
use crate::pb::services::{Packet, PacketType};
use crate::sync::receive::Next;
use crate::sync::{self, memory, receive, send};

const FILE_SYNC: &str = "/moby.filesync.v1.FileSync/DiffCopy";
const FILE_SEND: &str = "/moby.filesync.v1.FileSend/DiffCopy";
/// How many packets wait for the client.
const QUEUED_PACKETS: usize = 64;
/// Packets go to the disk's thread together, as many as have come meanwhile: to wake it for each takes longer than its work.
const MAX_BATCH_PACKETS: usize = 256;
const MAX_BATCH_BYTES: usize = 256 << 10;
/// How many batches wait for the disk.
const QUEUED_BATCHES: usize = 4;

/// Which files of the client.
#[derive(Clone, Debug, Default)]
pub struct SyncOptions {
    /// The name under which the client offers a folder: `context`, `dockerfile`, a named context.
    pub name: String,
    /// Patterns of what is wanted; none: everything.
    pub include: Vec<String>,
    /// Patterns of what is not.
    pub exclude: Vec<String>,
    /// Paths that are wanted with what their links lead to.
    pub follow: Vec<String>,
}

impl SyncOptions {
    /// As headers. Where a list has anything beyond ASCII all of it is escaped, as Go's `url.QueryEscape` does.
    fn metadata(&self) -> Vec<(String, String)> {
        let mut metadata = vec![];
        let name = std::slice::from_ref(&self.name);
        for (key, values) in [
            ("dir-name", name),
            ("include-patterns", &self.include),
            ("exclude-patterns", &self.exclude),
            ("followpaths", &self.follow),
        ] {
            let escape = values.iter().any(|v| !v.bytes().all(|b| matches!(b, 0x20..=0x7e)));
            if escape {
                metadata.push((format!("{key}-encoded"), "1".to_string()));
            }
            for value in values {
                metadata.push((key.to_string(), if escape { query_escape(value) } else { value.clone() }));
            }
        }
        metadata
    }
}

/// Which of a build's outputs, where the client has several, and what it is told with the head.
#[derive(Clone, Debug, Default)]
pub struct FileTarget {
    /// The output's place in the request.
    pub exporter: usize,
    /// What the exporter says of it (`exporter-md-KEY`).
    pub metadata: Vec<(String, String)>,
}

impl Session {
    /// Makes `root` equal to the client's files; `progress` is told how many bytes of packets have come so far.
    /// `contents` sees what is written, and is kept as long as anything is, which may be longer than anybody waits for it.
    /// Gives how many files there are.
    ///
    /// # Errors
    /// The client's; hostile names; the disk's.
    pub async fn sync_to_folder(
        &self,
        options: &SyncOptions,
        root: OwnedFd,
        contents: impl receive::Contents + 'static,
        progress: impl FnMut(u64) + Send,
    ) -> Result<usize, Error> {
        self.require(FILE_SYNC)?;
        let (writer, reader) = self.channel.open(FILE_SYNC, &options.metadata()).await?;
        let (packets, mut incoming) = mpsc::channel::<Vec<Packet>>(QUEUED_BATCHES);
        let (asks, wanted) = mpsc::unbounded_channel();
        let disk = tokio::task::spawn_blocking(move || {
            let mut receiver = receive::Receiver::new(root, contents)?;
            while let Some(batch) = incoming.blocking_recv() {
                let mut asked = Vec::new();
                for packet in batch {
                    match receiver.packet(packet)? {
                        Next::Continue => {}
                        next => asked.push(next),
                    }
                }
                // That nobody asks any more shows at the next batch.
                let _ = asks.send(asked);
            }
            Ok::<_, sync::Error>(receiver.counts().0)
        });
        let (mut reader, moved) = exchange(writer, reader, packets, wanted, progress).await;
        let counted = disk.await;
        match counted {
            // What the disk says comes first: it is why the exchange ended.
            Ok(result) => {
                let files = result?;
                moved?;
                end(&mut reader).await?;
                Ok(files)
            }
            Err(gone) => Err(Error::Read(std::io::Error::other(gone))),
        }
    }

    /// Takes a few small files of the client into memory.
    ///
    /// # Errors
    /// The client's; hostile names; too much.
    pub async fn sync_to_memory(
        &self,
        options: &SyncOptions,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<memory::Files, Error> {
        self.require(FILE_SYNC)?;
        let (mut writer, mut reader) = self.channel.open(FILE_SYNC, &options.metadata()).await?;
        let mut receiver = memory::Receiver::default();
        let mut bytes = 0;
        while let Some(packet) = reader.message::<Packet>().await? {
            bytes += packet.encoded_len() as u64;
            progress(bytes);
            match receiver.packet(packet)? {
                Next::Continue => {}
                Next::Request(id) => writer.send(&request(id)).await?,
                Next::Finish => {
                    writer.send(&fin()).await?;
                    end(&mut reader).await?;
                    return Ok(receiver.into_files());
                }
            }
        }
        Err(sync::Error::Protocol("the sender ended it too early").into())
    }

    /// Sends a folder's files to the client, which puts them where the user said.
    ///
    /// # Errors
    /// The client's; the disk's.
    pub async fn send_folder(
        &self,
        target: &FileTarget,
        root: OwnedFd,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<(), Error> {
        self.require(FILE_SEND)?;
        let (mut writer, mut reader) = self.channel.open(FILE_SEND, &target.headers()).await?;
        let (asks, mut wanted) = mpsc::unbounded_channel::<u32>();
        let (packets, mut outgoing) = mpsc::channel::<Packet>(QUEUED_PACKETS);
        let disk = tokio::task::spawn_blocking(move || {
            let mut sender = send::Sender::new(root);
            sender.list(&mut |packet| packets.blocking_send(packet).is_ok())?;
            while let Some(id) = wanted.blocking_recv() {
                sender.content(id, &mut |packet| packets.blocking_send(packet).is_ok())?;
            }
            Ok::<_, sync::Error>(())
        });
        let sending = async {
            let mut bytes = 0;
            while let Some(packet) = outgoing.recv().await {
                bytes += packet.encoded_len() as u64;
                writer.send(&packet).await?;
                progress(bytes);
            }
            Ok::<_, Error>(writer)
        };
        let receiving = async {
            while let Some(packet) = reader.message::<Packet>().await? {
                match PacketType::try_from(packet.r#type) {
                    Ok(PacketType::Req) => drop(asks.send(packet.id)),
                    Ok(PacketType::Fin) => break,
                    Ok(PacketType::Err) => {
                        return Err(sync::Error::Receiver(
                            String::from_utf8_lossy(&packet.data).into_owned(),
                        )
                        .into());
                    }
                    _ => {
                        return Err(
                            sync::Error::Protocol("the receiver sent a packet that does not fit").into()
                        );
                    }
                }
            }
            // The disk's work ends with its orders.
            drop(asks);
            Ok::<_, Error>(reader)
        };
        let disk = async {
            let done = disk.await.map_err(|gone| Error::Read(std::io::Error::other(gone)))?;
            done.map_err(Error::from)
        };
        // An error of one ends all three: none may wait for one that has given up.
        let (mut writer, mut reader, ()) = tokio::try_join!(sending, receiving, disk)?;
        writer.send(&fin()).await?;
        writer.finish()?;
        while reader.message::<Packet>().await?.is_some() {}
        Ok(())
    }

    /// Sends one file to the client. What `pieces` says last decides: an error there is the transfer's.
    ///
    /// # Errors
    /// The client's; that of the pieces.
    pub async fn send_file(
        &self,
        target: &FileTarget,
        mut pieces: mpsc::Receiver<std::io::Result<Bytes>>,
    ) -> Result<(), Error> {
        self.require(FILE_SEND)?;
        let (mut writer, mut reader) = self.channel.open(FILE_SEND, &target.headers()).await?;
        while let Some(piece) = pieces.recv().await {
            let data = piece.map_err(Error::Read)?;
            if let Err(gone) = writer.send(&BytesMessage { data }).await {
                // The client says why, where it can.
                reader.message::<BytesMessage>().await?;
                return Err(gone.into());
            }
        }
        writer.finish()?;
        while reader.message::<BytesMessage>().await?.is_some() {}
        Ok(())
    }
}

impl FileTarget {
    fn headers(&self) -> Vec<(String, String)> {
        let mut headers = vec![("buildkit-attachable-exporter-id".to_string(), self.exporter.to_string())];
        headers
            .extend(self.metadata.iter().map(|(key, value)| (format!("exporter-md-{key}"), value.clone())));
        headers
    }
}

/// Moves packets to the disk and its requests to the client, both at once: neither may wait for the other.
async fn exchange(
    mut writer: Writer,
    mut reader: Reader,
    packets: mpsc::Sender<Vec<Packet>>,
    mut wanted: mpsc::UnboundedReceiver<Vec<Next>>,
    mut progress: impl FnMut(u64) + Send,
) -> (Reader, Result<(), Error>) {
    let (finished, mut is_finished) = tokio::sync::oneshot::channel::<()>();
    let incoming = async {
        let mut bytes = 0;
        loop {
            // What comes after the last request has been served is the end of the exchange, not the disk's.
            let packet = tokio::select! {
                biased;
                _ = &mut is_finished => return Ok::<_, Error>(()),
                packet = reader.message::<Packet>() => packet?,
            };
            let Some(packet) = packet else {
                return Err(sync::Error::Protocol("the sender ended it too early").into());
            };
            let mut size = packet.encoded_len();
            let mut batch = vec![packet];
            let mut ended: Option<Error> = None;
            while batch.len() < MAX_BATCH_PACKETS && size < MAX_BATCH_BYTES {
                match at_once(reader.message::<Packet>()).await {
                    None => break,
                    Some(Ok(Some(packet))) => {
                        size += packet.encoded_len();
                        batch.push(packet);
                    }
                    Some(Ok(None)) => {
                        ended = Some(sync::Error::Protocol("the sender ended it too early").into());
                        break;
                    }
                    Some(Err(status)) => {
                        ended = Some(status.into());
                        break;
                    }
                }
            }
            bytes += size as u64;
            progress(bytes);
            if packets.send(batch).await.is_err() {
                return Ok(());
            }
            // What came before it may say why.
            if let Some(error) = ended {
                return Err(error);
            }
        }
    };
    let outgoing = async {
        while let Some(asked) = wanted.recv().await {
            let requests: Vec<Packet> = asked.iter().filter_map(Next::request).collect();
            writer.send_all(&requests).await?;
            if asked.contains(&Next::Finish) {
                // All is there: only now may the client hear that it is done.
                let _ = finished.send(());
                writer.send(&fin()).await?;
                return Ok::<_, Error>(());
            }
        }
        Ok(())
    };
    let moved = tokio::try_join!(incoming, outgoing).map(|_| ());
    drop(packets);
    (reader, moved)
}

/// What a future gives without waiting for anything.
async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Waits for the end of a transfer whose files are all here.
async fn end(reader: &mut Reader) -> Result<(), Status> {
    while reader.message::<Packet>().await?.is_some() {}
    Ok(())
}

impl Next {
    /// The packet that asks for what is wanted.
    fn request(&self) -> Option<Packet> {
        match self {
            Next::Request(id) => Some(request(*id)),
            Next::Continue | Next::Finish => None,
        }
    }
}

fn request(id: u32) -> Packet {
    Packet { r#type: PacketType::Req as i32, id, ..Packet::default() }
}

fn fin() -> Packet {
    Packet { r#type: PacketType::Fin as i32, ..Packet::default() }
}

/// Go's `url.QueryEscape`.
fn query_escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            // Writing to a String cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_ascii_are_escaped() {
        let options = SyncOptions {
            name: "context".into(),
            exclude: vec!["*.key".into(), "größe x".into()],
            ..SyncOptions::default()
        };
        let metadata = options.metadata();
        let of = |key: &str| {
            metadata.iter().filter(|(k, _)| k == key).map(|(_, v)| v.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(of("dir-name"), ["context"]);
        assert_eq!(of("exclude-patterns-encoded"), ["1"]);
        assert_eq!(of("exclude-patterns"), ["%2A.key", "gr%C3%B6%C3%9Fe+x"]);
        assert!(of("followpaths").is_empty() && of("dir-name-encoded").is_empty());
    }
}
