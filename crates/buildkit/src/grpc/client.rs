//! Calling gRPC services on a connection.

use std::future::Future;

use bytes::Bytes;
use h2::client::SendRequest;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use super::frame::{Reader, Writer};
use super::status::{Code, Status};

/// What the other side may send ahead, for one call and for all: a context comes at full speed with less than a MiB.
const WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// What h2 charges for frames of less than 256 bytes that wait to be read: by itself it ends the connection before the window is
/// full of them, and a list of files is nothing but such frames. So many have the whole window in frames of 16 bytes.
const FRAME_BUDGET: usize = 16 * CONNECTION_WINDOW_BYTES as usize;

/// A connection on which calls are made.
#[derive(Clone, Debug)]
pub struct Channel {
    requests: SendRequest<Bytes>,
}

impl Channel {
    /// Begins HTTP/2 on `io`. The future that is returned moves the connection's bytes: it must be polled, and ends
    /// with the connection.
    ///
    /// # Errors
    /// Those of the handshake.
    pub async fn connect<IO>(
        io: IO,
    ) -> Result<(Self, impl Future<Output = Result<(), h2::Error>> + Send), h2::Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .data_frame_budget(FRAME_BUDGET)
            .enable_push(false)
            .handshake(io)
            .await?;
        Ok((Self { requests }, connection))
    }

    /// Opens a call whose directions are both streams. `metadata` may name a key several times.
    ///
    /// # Errors
    /// Metadata that no header can carry; a broken connection.
    pub async fn open(&self, path: &str, metadata: &[(String, String)]) -> Result<(Writer, Reader), Status> {
        let invalid =
            |what: &str| Status::new(Code::InvalidArgument, format!("{what:?} cannot be sent in a header"));
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        for (key, value) in metadata {
            let name = HeaderName::from_bytes(key.as_bytes()).map_err(|_| invalid(key))?;
            headers.append(name, HeaderValue::from_str(value).map_err(|_| invalid(value))?);
        }
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("http://localhost{path}").parse().map_err(|_| invalid(path))?;
        *request.headers_mut() = headers;
        let mut requests = self.requests.clone().ready().await?;
        let (response, stream) = requests.send_request(request, false)?;
        Ok((Writer::new(stream), Reader::of_response(response)))
    }

    /// Makes a call with one message each way.
    ///
    /// # Errors
    /// The other side's status; a broken connection.
    pub async fn unary<Q: Message, A: Message + Default>(
        &self,
        path: &str,
        request: &Q,
    ) -> Result<A, Status> {
        self.unary_with(path, &[], request).await
    }

    /// The same with metadata.
    ///
    /// # Errors
    /// As [`Channel::unary`].
    pub async fn unary_with<Q: Message, A: Message + Default>(
        &self,
        path: &str,
        metadata: &[(String, String)],
        request: &Q,
    ) -> Result<A, Status> {
        let (mut writer, mut reader) = self.open(path, metadata).await?;
        // A call that has been answered already takes nothing more: the answer counts.
        let _ = writer.send(request).await.and_then(|()| writer.finish());
        let answer = reader.single().await?;
        match reader.message::<A>().await? {
            None => Ok(answer),
            Some(_) => Err(Status::new(Code::Internal, "the call was answered twice")),
        }
    }
}
