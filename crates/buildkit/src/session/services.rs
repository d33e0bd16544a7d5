//! Credentials, secrets, agents and uploads.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::{Error, Session};
use crate::grpc::Code;
use crate::pb::services::{
    CheckAgentRequest, CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse,
    GetSecretRequest, GetSecretResponse,
};
use crate::pb::{BytesMessage, Empty};

const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const FETCH_TOKEN: &str = "/moby.filesync.v1.Auth/FetchToken";
const GET_SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
const CHECK_AGENT: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const FORWARD_AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
const UPLOAD: &str = "/moby.upload.v1.Upload/Pull";

/// The largest secret (BuildKit's own limit).
const MAX_SECRET_BYTES: usize = 500 << 10;
/// Pieces in which an agent's answers travel.
const AGENT_PIECE_BYTES: usize = 32 << 10;

impl Session {
    /// The user's credentials for a registry's host, if there are any.
    ///
    /// # Errors
    /// The client's; that it offers none.
    pub async fn credentials(&self, host: &str) -> Result<Option<CredentialsResponse>, Error> {
        self.require(CREDENTIALS)?;
        let request = CredentialsRequest { host: host.to_string() };
        match self.channel.unary::<_, CredentialsResponse>(CREDENTIALS, &request).await {
            Ok(found) => Ok(Some(found).filter(|c| !c.secret.is_empty())),
            Err(status) if status.code == Code::Unimplemented => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    /// A token that the client fetches from a registry's token server with its own credentials.
    ///
    /// # Errors
    /// The client's; that it does not do so.
    pub async fn fetch_token(&self, request: &FetchTokenRequest) -> Result<FetchTokenResponse, Error> {
        self.require(FETCH_TOKEN)?;
        Ok(self.channel.unary(FETCH_TOKEN, request).await?)
    }

    /// A secret, or none where the client has none of this name.
    ///
    /// # Errors
    /// The client's; a secret that is too large.
    pub async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Error> {
        if !self.supports(GET_SECRET) {
            return Ok(None);
        }
        let request = GetSecretRequest { id: id.to_string(), ..GetSecretRequest::default() };
        match self.channel.unary::<_, GetSecretResponse>(GET_SECRET, &request).await {
            Ok(secret) if secret.data.len() > MAX_SECRET_BYTES => {
                Err(Error::TooLarge { what: "the secret", limit: MAX_SECRET_BYTES })
            }
            Ok(secret) => Ok(Some(secret.data)),
            Err(status) if matches!(status.code, Code::NotFound | Code::Unimplemented) => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    /// Whether the client forwards an agent of this name (`default` when the name is empty); if not, why.
    ///
    /// # Errors
    /// That of a broken connection.
    pub async fn has_agent(&self, id: &str) -> Result<Result<(), String>, Error> {
        let none = || Ok(Err(format!("no SSH key {id:?} forwarded from the client")));
        if !self.supports(CHECK_AGENT) || !self.supports(FORWARD_AGENT) {
            return none();
        }
        let request = CheckAgentRequest { id: id.to_string() };
        match self.channel.unary::<_, Empty>(CHECK_AGENT, &request).await {
            Ok(Empty {}) => Ok(Ok(())),
            Err(status) if status.code == Code::Unavailable => Err(status.into()),
            Err(status) if status.code == Code::Unimplemented => none(),
            // What the client says of an agent that it does not have has no code of its own.
            Err(status) => Ok(Err(status.message)),
        }
    }

    /// Carries one connection to the client's agent, until either side ends.
    ///
    /// # Errors
    /// The client's; those of `socket`.
    pub async fn forward_agent(&self, id: &str, socket: UnixStream) -> Result<(), Error> {
        self.require(FORWARD_AGENT)?;
        let metadata = [("buildkit.ssh.id".to_string(), id.to_string())];
        let (mut writer, mut reader) = self.channel.open(FORWARD_AGENT, &metadata).await?;
        let (mut from_step, mut to_step) = socket.into_split();
        let to_client = async {
            let mut buffer = BytesMut::with_capacity(AGENT_PIECE_BYTES);
            loop {
                buffer.reserve(AGENT_PIECE_BYTES);
                if from_step.read_buf(&mut buffer).await.map_err(Error::Agent)? == 0 {
                    writer.finish()?;
                    return Ok::<_, Error>(());
                }
                writer.send(&BytesMessage { data: buffer.split().freeze() }).await?;
            }
        };
        let to_here = async {
            while let Some(piece) = reader.message::<BytesMessage>().await? {
                to_step.write_all(&piece.data).await.map_err(Error::Agent)?;
            }
            to_step.shutdown().await.map_err(Error::Agent)
        };
        tokio::try_join!(to_client, to_here).map(|_| ())
    }

    /// Pulls what the client offers under a path of the host `buildkit-session`: a context that came on its standard
    /// input. Pieces go to `out`; a receiver that is gone ends the transfer, and has its own reason.
    ///
    /// # Errors
    /// The client's; that it offers none.
    pub async fn upload(&self, path: &str, out: mpsc::Sender<Bytes>) -> Result<(), Error> {
        self.require(UPLOAD)?;
        let metadata = [
            ("urlpath".to_string(), path.to_string()),
            ("urlhost".to_string(), "buildkit-session".to_string()),
        ];
        let (mut writer, mut reader) = self.channel.open(UPLOAD, &metadata).await?;
        writer.finish()?;
        while let Some(piece) = reader.message::<BytesMessage>().await? {
            if out.send(piece.data).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}
