//! A side that reads later than the other one writes.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use wherry_buildkit::grpc::{Call, Channel, Service, Status, serve};
use wherry_buildkit::pb::{BytesMessage, Empty};

/// Of 20 bytes each in a frame of its own, so that all of them fit into what may be sent ahead: the list of a context's files
/// is not unlike that.
const MESSAGES: usize = 50_000;

/// Sends messages as fast as it can.
struct Flood {
    sent: Notify,
}

impl Service for Flood {
    async fn call(self: Arc<Self>, mut call: Call) -> Result<(), Status> {
        let _: Empty = call.reader.single().await?;
        if call.path.ends_with("/Ping") {
            return call.replier.send(&Empty {}).await;
        }
        for _ in 0..MESSAGES {
            call.replier.send(&BytesMessage { data: Bytes::from_static(b"13 bytes long") }).await?;
        }
        self.sent.notify_one();
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_messages_may_wait_to_be_read() {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let flood = Arc::new(Flood { sent: Notify::new() });
    tokio::spawn(serve(theirs, flood.clone()));
    let (channel, connection) = Channel::connect(ours).await.unwrap();
    let mut connection = tokio::spawn(connection);
    let (mut writer, mut reader) = channel.open("/test.Flood/Flood", &[]).await.unwrap();
    writer.send(&Empty {}).await.unwrap();
    writer.finish().unwrap();
    tokio::select! {
        () = flood.sent.notified() => {}
        ended = &mut connection => panic!("the connection ended: {ended:?}"),
    }
    // What is answered later has come later: all lies here now, and the connection is whole.
    channel.unary::<_, Empty>("/test.Flood/Ping", &Empty {}).await.unwrap();
    let mut read = 0;
    while let Some(BytesMessage { data }) = reader.message().await.unwrap() {
        assert_eq!(data.len(), 13);
        read += 1;
    }
    assert_eq!(read, MESSAGES);
}
