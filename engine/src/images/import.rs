//! `POST /images/create?fromSrc=…`: a file system becomes an image.

use std::io::{self, Read};
use std::sync::Arc;

use hyper::StatusCode;
use wherry_image_ref::Reference;
use wherry_image_store::{Expected, ImageId, NewImage};
use wherry_registry::{Download, Platform};

use super::body::BlockingBody;
use super::document::Imported;
use super::messages::{self, Pace};
use super::output::Output;
use super::{changes, tag};
use crate::containers::config::Config;
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::server::{Reply, Request, response};

/// What a client asked for.
struct Asked {
    name: Option<Reference>,
    comment: String,
    config: Config,
    platform: Platform,
}

pub(super) async fn import(engine: Arc<Engine>, request: Request) -> Result<Reply, Error> {
    let query = &request.query;
    let platform = query.get("platform").filter(|text| !text.is_empty()).map(Platform::parse).transpose();
    let platform = platform.map_err(Error::InvalidParameter)?;
    let source = query.get("fromSrc").unwrap_or_default().to_owned();
    let name = tag::target(query.get("repo"), query.get("tag"))?;
    let comment = query.get("message").filter(|text| !text.is_empty()).map(str::to_owned);
    let comment = comment.unwrap_or_else(|| format!("Imported from {source}"));
    let instructions: Vec<String> = query.all("changes").map(str::to_owned).collect();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (sender, response) = response::stream("application/json");
    let output = Output::new(sender, begun);
    let task = async move {
        let body = if source == "-" {
            BlockingBody::new(request.body)
        } else {
            download(&source, &output).await?
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
        Ok(output)
    };
    answer(task, has_begun, response).await
}
