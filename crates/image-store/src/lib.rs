//! Images on this host: their configurations, names, and layers on overlayfs.
//!
//! A library without a process of its own. Every call blocks, so async callers use
//! `spawn_blocking`; beside it there are a thread that empties the trash while there is some,
//! one that syncs while there are new images, and one that inflates while a layer is unpacked. It must not know Docker's HTTP API,
//! registries, or containers beyond the id of a writable layer.
//!
//! Files, all below the data root (0700/0710, owned by root):
//!
//! | path | content |
//! | --- | --- |
//! | `image/index.json` | which images there are, and all references: one file, so one atomic step |
//! | `image/configs/<hex>` | an image's configuration document; its SHA-256 is the image id |
//! | `overlay2/<diff id>/{diff,headers.zst,layer.json}` | a layer: its files, what `save` needs beside them, its size |
//! | `overlay2/<container>/{diff,work,image}` | a writable layer and a link that names its image |
//! | `overlay2/.base/` | the mount points and files that every container has |
//! | `overlay2/.staging/`, `overlay2/.trash/` | unfinished and deleted layers; emptied at start |
//!
//! Layers are stored by *diff id*, not by chain: overlayfs does not care in which order its
//! lower folders came into being, so layers are shared between images whatever lies below,
//! and unpack in parallel. Compressed blobs are not kept: `headers.zst` has what of a tar is not
//! in its files, so that `save` makes the same bytes again, and a push compresses them anew, as dockerd's does.
//! Containers' own layers are told, packed and exported by reading them where they are (`diff/`).
//!
//! Crash safety: a layer is unpacked in `.staging`, checked, and renamed; then the index is replaced through
//! [`wherry_durable`]. [`Store::open`] deletes whatever the index and the writable layers do not name, so a reader
//! finds an image whole or not at all, wherever this process was killed. Should the system die: an image made here is on
//! the disk before its commit returns. One that can be fetched again is published at once and marked as pending in the
//! index until the file system has been synced, in the background; after another boot, pending images and their
//! layers are left out and deleted. (The mark names the boot: what this kernel holds in memory survives us.)

mod archive;
mod background;
mod base;
mod catalogue;
mod config;
mod diff;
mod draft;
mod error;
mod id;
mod image;
mod index;
mod layers;
mod mount;
mod open;
mod removal;
mod store;
mod tar;
mod trash;
mod unpack;
mod view;
mod writable;

pub use archive::{LoadError, LoadEvent, Observer, Saved, Wanted};
pub use config::{Document, Healthcheck, History, ImageConfig, RootFs};
pub use diff::{Change, ChangeKind, pack, pack_contents};
pub use draft::Draft;
pub use error::{Error, Result};
pub use id::{DiffId, ImageId};
pub use image::Image;
pub use layers::Layer;
pub use mount::{Mountable, mount_detached};
pub use open::boot_id;
pub use removal::{Conflict, Removed, User, chain_ids};
pub use store::{NewImage, Store};
pub use tar::TarError;
pub use unpack::{Expected, Extract, UnpackError, extract, is_archive};
pub use view::{Bind, View, with_view};
pub use writable::Writable;
