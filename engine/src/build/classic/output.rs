//! The stream of messages that the classic builder's clients read.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::images::messages;

/// Where messages go. A client that has gone is noticed elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Output {
    client: mpsc::Sender<Bytes>,
    quiet: bool,
}

impl Output {
    pub(super) fn new(client: mpsc::Sender<Bytes>, quiet: bool) -> Self {
        Self { client, quiet }
    }

    /// For messages of pulls; a quiet build shows none.
    pub(super) fn pull_messages(&self) -> mpsc::Sender<Bytes> {
        if self.quiet {
            let (sender, mut receiver) = mpsc::channel(16);
            tokio::spawn(async move { while receiver.recv().await.is_some() {} });
            return sender;
        }
        self.client.clone()
    }

    /// Text for the user, unless the build is quiet.
    pub(super) async fn text(&self, text: &str) {
        if !self.quiet {
            self.send(messages::stream(text)).await;
        }
    }

    /// A heading: text, and the end of the line in a message of its own.
    pub(super) async fn heading(&self, text: &str) {
        self.text(text).await;
        self.text("\n").await;
    }

    /// ` ---> text`.
    pub(super) async fn arrow(&self, text: &str) {
        self.text(&format!(" ---> {text}\n")).await;
    }

    /// The image of a stage, for programs.
    pub(super) async fn image(&self, id: &str) {
        if !self.quiet {
            self.send(messages::built(id)).await;
        }
    }

    /// All that a quiet build says.
    pub(super) async fn result(&self, id: &str) {
        self.send(messages::stream(&format!("{id}\n"))).await;
    }

    /// The end of a build that failed.
    pub(super) async fn failure(&self, message: &str, code: Option<i32>) {
        self.send(messages::failed_build(message, code)).await;
    }

    /// What a step's program writes; standard error in bright red.
    pub(super) async fn program(&self, stream: u8, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        match stream {
            2 => self.text(&format!("\u{1b}[91m{text}\u{1b}[0m")).await,
            _ => self.text(&text).await,
        }
    }

    /// Returns when the client has gone.
    pub(super) async fn gone(&self) {
        self.client.closed().await;
    }

    async fn send(&self, message: Bytes) {
        let _ = self.client.send(message).await;
    }
}
