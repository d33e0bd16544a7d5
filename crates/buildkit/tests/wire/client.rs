//! A client's session: a folder that it offers, or one packet after another as the test says.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderMap;
use tokio::net::UnixStream;
use wherry_buildkit::grpc::{Call, Code, Service, Status};
use wherry_buildkit::pb::services::{
    CheckAgentRequest, GetSecretRequest, GetSecretResponse, Packet, PacketType,
};
use wherry_buildkit::pb::{BytesMessage, Empty};
use wherry_buildkit::session::{Session, Sessions};
use wherry_buildkit::sync::send::Sender;

/// What the client does.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// The folder that it offers.
    pub(crate) folder: PathBuf,
    /// Instead of the folder: these packets, and nothing else.
    pub(crate) script: Vec<Packet>,
    /// How many files it was asked for.
    pub(crate) asked: AtomicUsize,
    /// The file that it was sent.
    pub(crate) received: std::sync::Mutex<Vec<u8>>,
}

pub(crate) fn packet(kind: PacketType) -> Packet {
    Packet { r#type: kind as i32, ..Packet::default() }
}

impl Service for Client {
    async fn call(self: Arc<Self>, mut call: Call) -> Result<(), Status> {
        match call.path.as_str() {
            "/moby.filesync.v1.FileSync/DiffCopy" => self.diff_copy(call).await,
            "/moby.filesync.v1.FileSend/DiffCopy" => {
                while let Some(piece) = call.reader.message::<BytesMessage>().await? {
                    self.received.lock().unwrap().extend_from_slice(&piece.data);
                }
                Ok(())
            }
            "/moby.buildkit.secrets.v1.Secrets/GetSecret" => {
                let request: GetSecretRequest = call.reader.single().await?;
                if request.id != "known" {
                    return Err(Status::new(Code::NotFound, format!("secret {}: not found", request.id)));
                }
                call.replier.send(&GetSecretResponse { data: b"hidden".to_vec() }).await
            }
            "/moby.sshforward.v1.SSH/CheckAgent" => {
                let request: CheckAgentRequest = call.reader.single().await?;
                match request.id.as_str() {
                    "known" => call.replier.send(&Empty {}).await,
                    other => Err(Status::unknown(format!("unset ssh forward key {other}"))),
                }
            }
            // An agent that says everything again.
            "/moby.sshforward.v1.SSH/ForwardAgent" => {
                while let Some(piece) = call.reader.message::<BytesMessage>().await? {
                    call.replier.send(&piece).await?;
                }
                Ok(())
            }
            "/moby.upload.v1.Upload/Pull" => {
                assert_eq!(call.metadata.get("urlpath").unwrap(), "/stdin");
                for piece in ["sent ", "once"] {
                    call.replier.send(&BytesMessage { data: piece.into() }).await?;
                }
                Ok(())
            }
            other => Err(Status::new(Code::Unimplemented, other)),
        }
    }
}

impl Client {
    async fn diff_copy(&self, mut call: Call) -> Result<(), Status> {
        for packet in &self.script {
            call.replier.send(packet).await?;
        }
        if !self.script.is_empty() {
            // Until the other side has had enough.
            return std::future::pending().await;
        }
        let mut sender = Sender::new(std::fs::File::open(&self.folder).unwrap().into());
        let mut packets = Vec::new();
        sender
            .list(&mut |packet| {
                packets.push(packet);
                true
            })
            .unwrap();
        for packet in &packets {
            call.replier.send(packet).await?;
        }
        while let Some(request) = call.reader.message::<Packet>().await? {
            if request.r#type == PacketType::Fin as i32 {
                return call.replier.send(&packet(PacketType::Fin)).await;
            }
            self.asked.fetch_add(1, Ordering::Relaxed);
            let mut content = Vec::new();
            sender
                .content(request.id, &mut |packet| {
                    content.push(packet);
                    true
                })
                .unwrap();
            for packet in &content {
                call.replier.send(packet).await?;
            }
        }
        Ok(())
    }

    pub(crate) fn offering(folder: &Path) -> Arc<Self> {
        Arc::new(Self { folder: folder.to_path_buf(), ..Self::default() })
    }

    /// Opens a session of that name; ends with the socket that is returned.
    pub(crate) async fn open(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        id: &str,
    ) -> (Arc<Session>, tokio::task::JoinHandle<()>) {
        let (theirs, ours) = UnixStream::pair().unwrap();
        let service = self.clone();
        let client = tokio::spawn(async move {
            let _ = wherry_buildkit::grpc::serve(theirs, service).await;
        });
        let mut headers = HeaderMap::new();
        headers.insert("x-docker-expose-session-uuid", id.parse().unwrap());
        for method in [
            "/moby.filesync.v1.FileSync/DiffCopy",
            "/moby.filesync.v1.FileSend/DiffCopy",
            "/moby.buildkit.secrets.v1.Secrets/GetSecret",
            "/moby.sshforward.v1.SSH/CheckAgent",
            "/moby.sshforward.v1.SSH/ForwardAgent",
            "/moby.upload.v1.Upload/Pull",
        ] {
            headers.append("x-docker-expose-session-grpc-method", method.parse().unwrap());
        }
        let registry = sessions.clone();
        tokio::spawn(async move { registry.hold(&headers, ours).await });
        (sessions.get(id).await.unwrap(), client)
    }
}
