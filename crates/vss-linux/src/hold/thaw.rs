//! Thawing for a guard that cannot: the loop that vssd's backup and the sweep share.

use std::os::fd::AsFd;

use super::ledger::{Ledger, State};
use crate::freeze::{self, Thaw};

/// How thawing in the guard's place ended for one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rescue {
    /// The ledger says that nothing was frozen by us, or that it is thawed, or that somebody else had frozen it.
    NotOurs,
    /// It was frozen; we have thawed it.
    Thawed,
    /// The ledger said that it may be frozen, but it was not.
    NotFrozen,
    /// `pause` gave up.
    Unfinished,
}

/// Thaws member `index` of `ledger` through `directory` until it is certain that none of our freezes is left.
///
/// `guard_is_gone` says whether no thread of the guard can be in a system call any more. Only a FITHAW that *begins*
/// after that proves anything by an EINVAL: before, a FIFREEZE may still be running and complete later. Until then
/// `may_call` says whether FITHAW can be called without waiting behind a call of the guard ([`super::threads`]). `pause`
/// waits between two tries and returns false to give up.
pub fn rescue(
    ledger: &Ledger,
    index: usize,
    directory: impl AsFd,
    guard_is_gone: impl Fn() -> bool,
    may_call: impl Fn() -> bool,
    mut pause: impl FnMut() -> bool,
) -> Rescue {
    loop {
        let gone = guard_is_gone();
        if ledger.state(index) != State::Ours {
            if gone {
                return Rescue::NotOurs;
            }
        } else if gone || may_call() {
            let rescue = match freeze::thaw(&directory) {
                Ok(Thaw::Thawed) => Some(Rescue::Thawed),
                Ok(Thaw::NotFrozen) if gone => Some(Rescue::NotFrozen),
                Ok(Thaw::NotFrozen) | Err(_) => None,
            };
            if let Some(rescue) = rescue {
                // Failing to write it down costs one needless FITHAW later.
                let _ = ledger.mark(index, State::Thawed);
                return rescue;
            }
        }
        if !pause() {
            return Rescue::Unfinished;
        }
    }
}
