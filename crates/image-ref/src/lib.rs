//! The names by which images are called: [`Digest`]s and [`Reference`]s.
//!
//! Pure parsing and printing, shared by the image store, the registry client and the
//! engine, which know nothing of each other. It does no I/O, owns no files, and knows
//! nothing of what an image is. The grammar is that of the OCI distribution
//! specification; the normalisation (`busybox` → `docker.io/library/busybox:latest`)
//! and the error texts are Docker's.

mod digest;
mod reference;

pub use digest::{Digest, DigestError, Hasher};
pub use reference::{DEFAULT_DOMAIN, DEFAULT_TAG, Reference, ReferenceError};
