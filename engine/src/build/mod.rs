//! Builds: from a Dockerfile and a context to an image.
//!
//! One executor ([`execute`]) serves all doors. A door makes a [`Job`] of its request, gives the executor access to what the
//! client has ([`Sources`]: contexts, secrets, SSH agents, credentials), shows the [`Event`]s that come through the
//! job's channel, and gets a [`Built`] image (a document and its layers, not in the store yet unless the door says so) or a
//! [`Failure`] that knows its place in the Dockerfile. Dropping the future of [`execute`] stops the build: programs of running
//! steps are killed, and nothing half-made stays.
//!
//! Steps run in the containers' own monitor and runtime; their layers are written where they stay ([`wherry_image_store::Draft`]).

#![expect(dead_code, unused_imports, reason = "what follows in a moment uses it")]

mod job;

pub(crate) use job::{
    Built, Event, Failure, Folder, Future, Job, Limits, NoCache, Place, Sources, StepId, Stream, Warning,
};
