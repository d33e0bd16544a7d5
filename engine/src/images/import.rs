//! `POST /images/create?fromSrc=…`: a file system becomes an image.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use tokio::sync::mpsc;
use wherry_image_ref::Reference;
use wherry_image_store::{Expected, ImageId, NewImage};
use wherry_registry::{Client, Download, Platform};

use super::body::BlockingBody;
use super::document::Imported;
use super::messages::{self, Pace};
use super::output::Output;
use super::{changes, output, registry, tag};
use crate::containers::config::Config;
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::server::{Reply, Request};
use crate::text::go_quote;

/// What a client asked for.
struct Asked {
    name: Option<Reference>,
    comment: String,
    config: Config,
    platform: Platform,
}

pub(super) async fn import(engine: Arc<Engine>, request: Request) -> Result<Reply, Error> {
    let query = &request.query;
    let platform = query.get("platform").filter(|text| !text.is_empty()).map(platform).transpose()?;
    let source = query.get("fromSrc").unwrap_or_default().to_owned();
    let name = tag::target(query.get("repo"), query.get("tag"))?;
    let comment = query.get("message").filter(|text| !text.is_empty()).map(str::to_owned);
    let comment = comment.unwrap_or_else(|| format!("Imported from {source}"));
    let instructions: Vec<String> = query.all("changes").map(str::to_owned).collect();
    let client = registry::client(&engine, &request);
    output::respond(move |output| async move {
        let body = match source.as_str() {
            "-" => BlockingBody::new(request.body),
            url => download(&client, url, &output).await?,
        };
        let platform = platform.unwrap_or_else(Platform::host);
        if platform.os != "linux" {
            return Err(Error::InvalidParameter("operating system is not supported".into()));
        }
        let mut config = Config::default();
        changes::apply(&mut config, &instructions)?;
        let asked = Asked { name, comment, config, platform };
        let id = blocking(move || make(&engine, &asked, body)).await?;
        output.send(messages::status(&id.to_string(), None)).await;
        Ok(())
    })
    .await
}

/// As given: unlike in a pull, a variant that goes without saying is not added.
fn platform(text: &str) -> Result<Platform, Error> {
    let mut platform = Platform::parse(text).map_err(Error::InvalidParameter)?;
    if text.split('/').count() < 3 {
        platform.variant.clear();
    }
    Ok(platform)
}

/// Unpacks the file system and makes the image. Blocking.
fn make(engine: &Engine, asked: &Asked, body: BlockingBody) -> Result<ImageId, Error> {
    let layer = engine.store.ingest(Expected::default(), body)?;
    let imported = Imported {
        config: &asked.config,
        comment: &asked.comment,
        platform: &asked.platform,
        layer: layer.diff_id(),
    };
    let document = imported.document();
    let layers = [layer];
    let new = NewImage {
        config: &document,
        layers: &layers,
        names: &[],
        parent: None,
        tagged: false,
        fetched: false,
    };
    let id = engine.store.commit(&new)?.id;
    if let Some(name) = &asked.name {
        engine.store.tag(&id, name)?;
        super::publish(engine, "tag", &id, &name.familiar());
    }
    super::publish(engine, "import", &id, &id.to_string());
    Ok(id)
}

/// Begins to fetch `source`, which is an address, `http://` if it does not say.
async fn download(client: &Client, source: &str, output: &Output) -> Result<BlockingBody, Error> {
    let url = if source.contains("://") { source.to_owned() } else { format!("http://{source}") };
    if url.starts_with("://") {
        return Err(Error::InvalidParameter(format!("parse {}: missing protocol scheme", go_quote(&url))));
    }
    let failed = |error: wherry_registry::Error| Error::server(error.to_string());
    let download = client.download(&url).await.map_err(failed)?;
    let status = download.status();
    if status.is_client_error() || status.is_server_error() {
        let text = download.text().await.map_err(failed)?;
        let reason = status.canonical_reason().unwrap_or_default();
        let message =
            format!("failed to GET {url} with status {} {reason}: {}", status.as_u16(), text.trim());
        let status = match status {
            StatusCode::NOT_FOUND
            | StatusCode::BAD_REQUEST
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN => status,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        return Err(Error::Docker { status, message });
    }
    output.send(messages::status(&format!("Downloading from {url}"), None)).await;
    let (sender, body) = BlockingBody::channel();
    tokio::spawn(transfer(download, sender, output.clone()));
    Ok(body)
}

/// Moves the bytes on, and tells how many there were.
async fn transfer(mut download: Download, sender: mpsc::Sender<io::Result<Bytes>>, output: Output) {
    let (mut current, total) = (0, download.length().unwrap_or(0));
    let mut pace = Pace::default();
    loop {
        match download.next().await {
            Ok(Some(bytes)) => {
                current += bytes.len() as u64;
                if sender.send(Ok(bytes)).await.is_err() {
                    return; // who reads it has failed, and says so
                }
                if pace.allows(current == total) {
                    output.send(messages::progress("Importing", "", current, total)).await;
                }
            }
            Ok(None) => return,
            Err(error) => {
                let _ = sender.send(Err(io::Error::other(error))).await;
                return;
            }
        }
    }
}
