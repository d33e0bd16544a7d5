//! What the ids of a bind mount are mapped by: `mounts[].uidMappings` and `gidMappings` (runtime specification, "Mounts"), the
//! container's user namespace, or mappings in the option itself, as crun has it:
//! `idmap=uids=FROM-TO-COUNT#…;gids=…`, where FROM is the file system's id and TO the host's, or, after an `@`, the container's.

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Mount as SpecMount};

use super::mounts::{BindView, IdMap};
use super::namespaces::User;
use super::options::Options;
use crate::{Error, userns};

/// Compiles; `None` for ids that stay as they are.
pub(super) fn compile(
    mount: &SpecMount,
    options: &Options,
    view: BindView<'_>,
) -> Result<Option<IdMap>, Error> {
    fn given(mappings: &Option<Vec<LinuxIdMapping>>) -> &[LinuxIdMapping] {
        mappings.as_deref().unwrap_or_default()
    }
    let own = (given(mount.uid_mappings()), given(mount.gid_mappings()));
    let in_option = options.idmap_text.as_deref().map(|text| parse(text, view.user)).transpose()?;
    let own = match (&in_option, own) {
        (None, own) => own,
        (Some((uids, gids)), ([], [])) => (uids.as_slice(), gids.as_slice()),
        (Some(_), _) => {
            let text = "the option idmap has mappings already";
            return Err(Error::spec("mounts.uidMappings", text));
        }
    };
    let idmap =
        |userns| IdMap { userns, recursive: options.idmap == Some(true), by_parent: view.parent_maps };
    let (uids, gids) = match (own, view.user) {
        (([], []), _) if options.idmap.is_none() => return Ok(None),
        (([], []), Some(User::New { uids, gids })) => (uids.as_slice(), gids.as_slice()),
        (([], []), Some(User::Joined { namespace })) => {
            let userns = namespace.try_clone().map_err(|e| Error::system("duplicate", "a namespace", e))?;
            return Ok(Some(idmap(userns)));
        }
        (([], []), None) => {
            return Err(Error::spec(
                "mounts.options",
                "idmap needs uidMappings and gidMappings, or a user namespace to take them from",
            ));
        }
        (([], _) | (_, []), _) => {
            let text = "id-mapped mounts must have both uid and gid mappings specified";
            return Err(Error::spec("mounts.uidMappings", text));
        }
        (own, _) => own,
    };
    userns::for_mappings(uids, gids).map(|userns| Some(idmap(userns)))
}

type Mappings = (Vec<LinuxIdMapping>, Vec<LinuxIdMapping>);

/// Reads `uids=FROM-TO-COUNT#…;gids=…`.
fn parse(text: &str, user: Option<&User>) -> Result<Mappings, Error> {
    let refuse = || {
        let expected = "is not like idmap=uids=0-1000-10#10-2000-10;gids=0-1000-20";
        Error::spec("mounts.options", format!("\"idmap={text}\" {expected}"))
    };
    let (mut uids, mut gids) = (Vec::new(), Vec::new());
    for part in text.split(';').filter(|part| !part.is_empty()) {
        let (list, ranges, own) = match (part.split_once('='), user) {
            (Some(("uids", ranges)), Some(User::New { uids: own, .. })) => {
                (&mut uids, ranges, own.as_slice())
            }
            (Some(("gids", ranges)), Some(User::New { gids: own, .. })) => {
                (&mut gids, ranges, own.as_slice())
            }
            (Some(("uids", ranges)), _) => (&mut uids, ranges, &[][..]),
            (Some(("gids", ranges)), _) => (&mut gids, ranges, &[][..]),
            _ => return Err(refuse()),
        };
        for range in ranges.split('#').filter(|range| !range.is_empty()) {
            let (relative, numbers) = range.strip_prefix('@').map_or((false, range), |rest| (true, rest));
            let numbers: Option<Vec<u32>> = numbers.split('-').map(|number| number.parse().ok()).collect();
            let Some([from, to, count]) = numbers.as_deref() else { return Err(refuse()) };
            let to = if relative { userns::mapped(own, *to) } else { Some(*to) };
            let to = to.ok_or_else(|| {
                Error::spec(
                    "mounts.options",
                    format!("{range:?} of idmap is not in the user namespace's mappings"),
                )
            })?;
            let mapping =
                LinuxIdMappingBuilder::default().container_id(*from).host_id(to).size(*count).build();
            list.push(mapping.map_err(|_| refuse())?);
        }
    }
    if uids.is_empty() || gids.is_empty() {
        return Err(refuse());
    }
    Ok((uids, gids))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(container: u32, host: u32, size: u32) -> LinuxIdMapping {
        LinuxIdMappingBuilder::default().container_id(container).host_id(host).size(size).build().unwrap()
    }

    #[test]
    fn mappings_in_the_option() {
        let parsed = parse("uids=0-1-10#10-11-10;gids=0-100-10", None).unwrap();
        assert_eq!(parsed, (vec![mapping(0, 1, 10), mapping(10, 11, 10)], vec![mapping(0, 100, 10)]));
        let own = vec![mapping(0, 0, 1), mapping(1, 2, 1000)];
        let user = User::New { uids: own.clone(), gids: own };
        let parsed = parse("gids=@0-0-1;uids=@1-3-10", Some(&user)).unwrap();
        assert_eq!(parsed, (vec![mapping(1, 4, 10)], vec![mapping(0, 0, 1)]), "crun(1) has this example");
        for bad in [
            "",
            "uids=0-1-2",
            "gids=0-1-2",
            "uids=0-1;gids=0-1-1",
            "uids=a-1-1;gids=0-1-1",
            "ids=0-1-1",
            "uids=0-1-1-1;gids=0-1-1",
            "uids=-1-1-1;gids=0-1-1",
            "uids=0-4294967296-1;gids=0-1-1",
            "uids",
        ] {
            assert!(parse(bad, None).unwrap_err().to_string().contains("is not like"), "{bad}");
        }
        let outside = parse("uids=@0-5000-1;gids=0-1-1", Some(&user)).unwrap_err().to_string();
        assert!(outside.contains("is not in the user namespace's mappings"), "{outside}");
    }
}
