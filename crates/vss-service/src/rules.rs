//! Who may do what: the rules of `vss.toml` over the peer's credentials (design 7).

use crate::config::Config;
use crate::fault;
use std::path::Path;
use vss_api::server::Peer;
use vss_model::{VssCode, VssError};

/// First uid of people; system accounts are below it (login.defs(5), SYS_UID_MAX 999 on Debian).
const FIRST_PERSON: u32 = 1000;

/// The rules with group names resolved.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    requester_uids: Vec<u32>,
    requester_gids: Vec<u32>,
    writer_uids: Vec<u32>,
    writer_gids: Vec<u32>,
    system_accounts: bool,
}

impl Rules {
    /// The rules of these settings; groups are looked up in `groups_file` (`/etc/group`) once. A group that is not there
    /// lets nobody in.
    #[must_use]
    pub fn new(config: &Config, groups_file: &Path) -> Self {
        let text = std::fs::read_to_string(groups_file).unwrap_or_default();
        let gids = |names: &[String]| names.iter().filter_map(|name| gid_of(&text, name)).collect();
        Self {
            requester_uids: config.requesters.uids.clone(),
            requester_gids: gids(&config.requesters.groups),
            writer_uids: config.writers.uids.clone(),
            writer_gids: gids(&config.writers.groups),
            system_accounts: config.writers.system_accounts,
        }
    }

    /// May this peer use the requester socket?
    ///
    /// # Errors
    /// `E_ACCESSDENIED`.
    pub fn requester(&self, peer: &Peer) -> Result<(), VssError> {
        let allowed = peer.uid == 0
            || self.requester_uids.contains(&peer.uid)
            || self.requester_gids.iter().any(|gid| peer.is_member_of(*gid))
            || fault::is_off("rights");
        if allowed { Ok(()) } else { Err(denied(peer, "use the requester socket", "Use sudo, or join the group vss")) }
    }

    /// May this peer use the writer socket?
    ///
    /// # Errors
    /// `E_ACCESSDENIED`.
    pub fn writer(&self, peer: &Peer) -> Result<(), VssError> {
        let allowed = peer.uid == 0
            || (self.system_accounts && peer.uid < FIRST_PERSON)
            || self.writer_uids.contains(&peer.uid)
            || self.writer_gids.iter().any(|gid| peer.is_member_of(*gid));
        if allowed {
            Ok(())
        } else {
            Err(denied(
                peer,
                "register a writer",
                "Run it as a system account, or name its uid in [writers] of vss.toml",
            ))
        }
    }
}

/// May this peer do what only root may?
///
/// # Errors
/// `E_ACCESSDENIED`.
pub fn root(peer: &Peer, what: &str) -> Result<(), VssError> {
    if peer.uid == 0 { Ok(()) } else { Err(denied(peer, what, "Use sudo")) }
}

/// May this peer name the directory for images?
///
/// # Errors
/// `E_ACCESSDENIED`.
pub fn choose_storage(peer: &Peer) -> Result<(), VssError> {
    root(peer, "choose where images lie")
}

/// May this peer touch what belongs to `owner`?
///
/// # Errors
/// `E_ACCESSDENIED`.
pub fn owner(peer: &Peer, owner: u32, what: &str) -> Result<(), VssError> {
    if peer.uid == 0 || peer.uid == owner { Ok(()) } else { Err(denied(peer, what, "Only its owner and root may")) }
}

fn denied(peer: &Peer, what: &str, hint: &str) -> VssError {
    VssError::new(VssCode::AccessDenied, format!("Uid {} may not {what}", peer.uid)).with_hint(hint)
}

/// The gid of a group in the text of group(5).
fn gid_of(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1))??.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, groups: &[u32]) -> Peer {
        Peer { uid, gid: uid, groups: groups.to_vec(), pid: 1, pidfd: None }
    }

    #[test]
    fn root_and_the_group_may_ask_and_system_accounts_may_write() {
        let file = std::env::temp_dir().join(format!("vss-rules-group-{}", std::process::id()));
        std::fs::write(&file, "root:x:0:\nvss:x:777:\n").unwrap();
        let rules = Rules::new(&Config::default(), &file);
        std::fs::remove_file(&file).unwrap();
        assert!(rules.requester(&peer(0, &[])).is_ok());
        assert!(rules.requester(&peer(1000, &[777])).is_ok());
        assert_eq!(rules.requester(&peer(1000, &[])).unwrap_err().code, VssCode::AccessDenied);
        assert!(rules.writer(&peer(113, &[])).is_ok());
        assert_eq!(rules.writer(&peer(1000, &[])).unwrap_err().code, VssCode::AccessDenied);
    }
}
