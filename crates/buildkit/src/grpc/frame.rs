//! Messages in HTTP/2 data: one byte that says whether it is compressed, four of length, the message.

use std::future::poll_fn;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use prost::Message;

use super::status::{Code, Status};

/// The largest message that is read (BuildKit's own limit).
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Flag and length.
const HEAD_BYTES: usize = 5;

/// Reads one direction of a call.
#[derive(Debug)]
pub struct Reader {
    source: Source,
    buffer: BytesMut,
}

#[derive(Debug)]
enum Source {
    /// The response has not begun.
    Response(h2::client::ResponseFuture),
    /// Messages come.
    Body { body: RecvStream, is_response: bool },
    /// All has been read.
    Ended,
}

impl Reader {
    /// Of a request's messages.
    pub(super) fn of_request(body: RecvStream) -> Self {
        Self { source: Source::Body { body, is_response: false }, buffer: BytesMut::new() }
    }

    /// Of a response's messages; its head is awaited with the first.
    pub(super) fn of_response(response: h2::client::ResponseFuture) -> Self {
        Self { source: Source::Response(response), buffer: BytesMut::new() }
    }

    /// The next message, or none at the orderly end.
    ///
    /// # Errors
    /// The other side's status; a broken connection; a message that is too large, compressed or malformed.
    pub async fn message<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        let Some(bytes) = self.next_bytes().await? else { return Ok(None) };
        M::decode(bytes)
            .map(Some)
            .map_err(|error| Status::new(Code::InvalidArgument, format!("a message cannot be read: {error}")))
    }

    /// The only message of a direction that has exactly one.
    ///
    /// # Errors
    /// As [`Reader::message`], and when there is none.
    pub async fn single<M: Message + Default>(&mut self) -> Result<M, Status> {
        match self.message().await? {
            Some(message) => Ok(message),
            None => Err(Status::new(Code::Internal, "the call ended without a message")),
        }
    }

    async fn next_bytes(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.split_message()? {
                return Ok(Some(message));
            }
            match &mut self.source {
                Source::Ended => return Ok(None),
                Source::Response(response) => {
                    let (head, body) = response.await?.into_parts();
                    if head.headers.contains_key("grpc-status") {
                        self.source = Source::Ended;
                        Status::check(&head.headers)?;
                    } else if head.status != http::StatusCode::OK {
                        self.source = Source::Ended;
                        return Err(Status::unknown(format!(
                            "the call was answered with HTTP status {}",
                            head.status
                        )));
                    } else {
                        self.source = Source::Body { body, is_response: true };
                    }
                }
                Source::Body { body, is_response } => match body.data().await {
                    Some(data) => {
                        let data = data?;
                        // The window is given back at once: what is kept here is bounded by one message. A stream that
                        // has ended has none any more.
                        let _ = body.flow_control().release_capacity(data.len());
                        self.buffer.put(data);
                    }
                    None => {
                        let trailers = if *is_response { body.trailers().await? } else { None };
                        let is_response = *is_response;
                        self.source = Source::Ended;
                        if !self.buffer.is_empty() {
                            return Err(Status::new(Code::Internal, "the call ended within a message"));
                        }
                        if is_response {
                            Status::check(&trailers.unwrap_or_default())?;
                        }
                    }
                },
            }
        }
    }

    /// Takes a whole message from the buffer.
    fn split_message(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(mut head) = self.buffer.get(..HEAD_BYTES) else { return Ok(None) };
        let compressed = head.get_u8();
        let length = head.get_u32() as usize;
        if compressed != 0 {
            return Err(Status::new(Code::Unimplemented, "compressed messages are not supported"));
        }
        if length > MAX_MESSAGE_BYTES {
            let text = format!("a message of {length} bytes is larger than {MAX_MESSAGE_BYTES}");
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        if self.buffer.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEAD_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// A message with its head.
///
/// # Errors
/// That it is larger than the head can say.
pub(super) fn encode<M: Message>(message: &M) -> Result<Bytes, Status> {
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + message.encoded_len());
    encode_into(&mut frame, message)?;
    Ok(frame.freeze())
}

fn encode_into<M: Message>(frame: &mut BytesMut, message: &M) -> Result<(), Status> {
    let length = message.encoded_len();
    let Ok(prefix) = u32::try_from(length) else {
        return Err(Status::new(
            Code::ResourceExhausted,
            format!("a message of {length} bytes is too large"),
        ));
    };
    frame.reserve(HEAD_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(prefix);
    message.encode_raw(frame);
    Ok(())
}

/// Sends bytes as the other side has room for them.
///
/// # Errors
/// That the call or the connection is gone.
pub(super) async fn write(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), Status> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(room) => room?,
            None => return Err(Status::new(Code::Cancelled, "the call was cancelled")),
        };
        let part = bytes.split_to(room.min(bytes.len()));
        stream.send_data(part, false)?;
    }
    Ok(())
}

/// Writes a client's direction of a call.
#[derive(Debug)]
pub struct Writer {
    stream: SendStream<Bytes>,
}

impl Writer {
    pub(super) fn new(stream: SendStream<Bytes>) -> Self {
        Self { stream }
    }

    /// Sends a message, once the other side has room for it.
    ///
    /// # Errors
    /// That the call or the connection is gone.
    pub async fn send<M: Message>(&mut self, message: &M) -> Result<(), Status> {
        write(&mut self.stream, encode(message)?).await
    }

    /// Sends several messages together, in order.
    ///
    /// # Errors
    /// As [`Writer::send`].
    pub async fn send_all<M: Message>(&mut self, messages: &[M]) -> Result<(), Status> {
        let mut frames = BytesMut::new();
        for message in messages {
            encode_into(&mut frames, message)?;
        }
        write(&mut self.stream, frames.freeze()).await
    }

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// That the call or the connection is gone.
    pub fn finish(&mut self) -> Result<(), Status> {
        Ok(self.stream.send_data(Bytes::new(), true)?)
    }
}
