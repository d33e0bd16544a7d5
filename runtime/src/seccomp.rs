//! seccomp
use crate::Error;
use oci_spec::runtime::LinuxSeccomp;
use serde::{Deserialize, Serialize};
/// A compiled filter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Filter {
    #[serde(with = "as_numbers")]
    pub(crate) program: Vec<libc::sock_filter>,
    pub(crate) flags: u32,
}
mod as_numbers {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    pub(super) fn serialize<S: Serializer>(program: &[libc::sock_filter], to: S) -> Result<S::Ok, S::Error> {
        let n: Vec<(u16, u8, u8, u32)> = program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
        n.serialize(to)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<libc::sock_filter>, D::Error> {
        let n = Vec::<(u16, u8, u8, u32)>::deserialize(from)?;
        Ok(n.into_iter().map(|(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect())
    }
}
pub(crate) fn compile(_seccomp: &LinuxSeccomp) -> Result<Option<Filter>, Error> {
    Ok(None)
}
