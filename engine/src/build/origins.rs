//! What a build was made of, for its provenance.

use std::collections::{BTreeMap, BTreeSet};

/// All that the result of a build depends on from elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Origins {
    /// Images, by their references and platforms, with a digest of each.
    pub(crate) images: BTreeMap<(String, String), String>,
    /// Repositories, by their addresses with what of them was wanted, with their commits.
    pub(crate) repositories: BTreeMap<String, String>,
    /// Files, by their addresses, with their digests.
    pub(crate) downloads: BTreeMap<String, String>,
    /// The client's folders that were used, by the names that the job gives them; the build's own has none.
    pub(crate) contexts: BTreeSet<String>,
    /// The same by the names that the client gives them, with those of builds whose results were used.
    pub(crate) locals: BTreeSet<String>,
    /// Secrets that steps may see, and whether one cannot go without.
    pub(crate) secrets: BTreeMap<String, bool>,
    /// The same of agents.
    pub(crate) agents: BTreeMap<String, bool>,
    /// Whether a program of a step had a network.
    pub(crate) has_network: bool,
}

impl Origins {
    /// A repository, with what the client may have been asked for to get it.
    pub(crate) fn add_repository(&mut self, remote: &str, reference: &str, commit: &str) {
        let address = super::git::redacted(remote);
        let address = if reference.is_empty() { address } else { format!("{address}#{reference}") };
        self.repositories.insert(address, commit.to_owned());
        for secret in ["GIT_AUTH_HEADER", "GIT_AUTH_TOKEN"] {
            self.secrets.entry(secret.to_owned()).or_default();
        }
        if super::git::is_ssh(remote) {
            self.agents.entry("default".to_owned()).or_default();
        }
    }

    /// Adds what another build was made of whose result this one uses. That gave names of its own to its contexts.
    pub(crate) fn add(&mut self, other: &Self) {
        self.images.extend(other.images.clone());
        self.repositories.extend(other.repositories.clone());
        self.downloads.extend(other.downloads.clone());
        self.locals.extend(other.locals.clone());
        for (all, more) in [(&mut self.secrets, &other.secrets), (&mut self.agents, &other.agents)] {
            for (id, required) in more {
                *all.entry(id.clone()).or_default() |= required;
            }
        }
        self.has_network |= other.has_network;
    }
}
