//! Blobs that the client offers by their digests: a cache in a folder of its own.

use bytes::Bytes;

use super::{Error, Session};
use crate::grpc::{Reader, Status};
use crate::pb::content::{Info, InfoRequest, InfoResponse, ReadRequest, ReadResponse};

const INFO: &str = "/containerd.services.content.v1.Content/Info";
const READ: &str = "/containerd.services.content.v1.Content/Read";
/// The header that says which of the client's stores is meant.
const STORE: &str = "buildkit-attachable-store-id";

/// A blob that comes piece by piece.
#[derive(Debug)]
pub struct Content {
    reader: Reader,
}

impl Content {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// The client's; a broken connection.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(self.reader.message::<ReadResponse>().await?.map(|piece| piece.data))
    }
}

impl Session {
    /// How many bytes a blob has in a store of the client (`local:FOLDER`).
    ///
    /// # Errors
    /// That it has none; that the client offers no store.
    pub async fn content_size(&self, store: &str, digest: &str) -> Result<u64, Error> {
        self.require(INFO)?;
        let request = InfoRequest { digest: digest.to_owned() };
        let answer: InfoResponse = self.channel.unary_with(INFO, &store_header(store), &request).await?;
        let Info { size, .. } = answer.info.unwrap_or_default();
        u64::try_from(size).map_err(|_| Status::unknown(format!("{digest} has {size} bytes")).into())
    }

    /// Begins to read a blob of a store of the client. What comes is not checked here.
    ///
    /// # Errors
    /// As [`Session::content_size`].
    pub async fn content(&self, store: &str, digest: &str) -> Result<Content, Error> {
        self.require(READ)?;
        let (mut writer, reader) = self.channel.open(READ, &store_header(store)).await?;
        // A call that has been answered already takes nothing more: the answer counts.
        let _ = writer.send(&ReadRequest { digest: digest.to_owned(), ..ReadRequest::default() }).await;
        let _ = writer.finish();
        Ok(Content { reader })
    }
}

fn store_header(store: &str) -> [(String, String); 1] {
    [(STORE.to_owned(), store.to_owned())]
}
