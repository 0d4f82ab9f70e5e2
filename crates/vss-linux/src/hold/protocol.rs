//! The messages between vssd and its guard.
//!
//! ```text
//!   vssd                      guard
//!   Prepare + descriptors ->            once, first
//!                         <-  Ready     ledger written and locked, threads made      (or Refused, and the guard ends)
//!   Sync                  ->
//!                         <-  Synced i  | Failed i                                   one per member, any order
//!   Freeze level k        ->            level 0, the innermost, first
//!                         <-  Frozen i  | Failed i                                   one per member of the level
//!   Release               ->
//!                         <-  Thawed i  | Lost i                                     one per member that was frozen
//!                         <-  Expedited                                              rcu_expedited has its old value again
//! ```
//!
//! A member that is thawed before `Release` was sent (deadline, SIGTERM, end of vssd) is answered in the same way, with
//! the [`Cause`]. `Expedited` comes after each time that the switch was set, before the first `Thawed`. Every message is one packet of [`PACKET`] bytes on a SOCK_SEQPACKET socket, little-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 0 | kind |
//! | 1 | member, 255 = none |
//! | 2 | level, step, cause or refusal |
//! | 3 | flags |
//! | 4..8 | errno, 0 = none |
//! | 8..16 | CLOCK_BOOTTIME before the system call, ns |
//! | 16..24 | CLOCK_BOOTTIME after the system call, ns |
//!
//! `Prepare` is the exception: byte 1 is the number of members, followed by one byte for each: its level, 255 = never
//! frozen; the descriptors travel beside it (SCM_RIGHTS).

use rustix::io::Errno;

/// Length of a packet in bytes.
pub const PACKET: usize = 24;

/// In a packet: no member, or no level.
pub(super) const NONE: u8 = 255;

/// First byte of the first packet.
pub(super) const PREPARE: u8 = 1;

/// What vssd asks of the guard, after `Prepare`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// syncfs of every member, at the same time.
    Sync,
    /// FIFREEZE of every member of this level, at the same time. 0 is the innermost level.
    Freeze {
        /// The level.
        level: u8,
    },
    /// FITHAW of everything, outermost level first. There is one hold per guard: no `Freeze` is obeyed afterwards.
    Release,
}

/// What the guard says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Ready to sync and freeze.
    Ready {
        /// mlockall succeeded.
        memory_locked: bool,
        /// `/sys/kernel/rcu_expedited` can be set.
        expedites: bool,
    },
    /// The guard cannot work and ends.
    Refused {
        /// What it was doing.
        refusal: Refusal,
        /// The member it was doing it for.
        member: Option<u8>,
        /// Why, if a system call said so.
        errno: Option<Errno>,
    },
    /// syncfs has returned.
    Synced(Call),
    /// FIFREEZE has succeeded.
    Frozen(Call),
    /// FITHAW has succeeded.
    Thawed(Call, Cause),
    /// FITHAW said EINVAL: somebody else thawed the member while we held it, so the hold was not whole.
    Lost(Call, Cause),
    /// `/sys/kernel/rcu_expedited` was set for a freeze and is put back.
    Expedited {
        /// CLOCK_BOOTTIME before it was set, ns.
        set_ns: u64,
        /// CLOCK_BOOTTIME after it was put back, ns.
        restored_ns: u64,
        /// False when the kernel refused to put it back.
        restored: bool,
    },
    /// A system call failed; after `Sync` and `Freeze` nothing is frozen by it, after `Thaw` it is tried again.
    Failed {
        /// The member.
        member: u8,
        /// Which call.
        step: Step,
        /// Why. EBUSY of `Freeze`: frozen by somebody else for [`super::BUSY_LIMIT`]. ECANCELED: the hold was already
        /// over when its turn came.
        errno: Errno,
    },
}

/// One system call on one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Index of the member.
    pub member: u8,
    /// CLOCK_BOOTTIME just before the call, ns.
    pub called_ns: u64,
    /// CLOCK_BOOTTIME just after it, ns.
    pub returned_ns: u64,
}

/// Declares an enum with the byte that stands for each variant in a packet.
macro_rules! wire_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $byte:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant = $byte,)* }

        impl $name {
            fn from_byte(byte: u8) -> Option<Self> {
                match byte { $($byte => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

wire_enum! {
    /// Why a member was thawed.
    Cause {
        /// vssd asked for it.
        Release = 1,
        /// The hold had lasted its limit.
        Deadline = 2,
        /// vssd closed the channel, or died.
        Abandoned = 3,
        /// SIGTERM.
        Terminated = 4,
    }
}

wire_enum! {
    /// A system call that can fail.
    Step {
        /// syncfs.
        Sync = 1,
        /// FIFREEZE.
        Freeze = 2,
        /// FITHAW.
        Thaw = 3,
    }
}

wire_enum! {
    /// What a guard was doing when it gave up before it was ready.
    Refusal {
        /// Taking SIGTERM over, ignoring the other signals, making timers.
        Setup = 1,
        /// Identifying a member.
        Member = 2,
        /// Writing the ledger, or locking it: another guard has it.
        Ledger = 3,
        /// The ledger lies on a member: it could not be written in the hold.
        LedgerOnMember = 4,
        /// Making the member's thread.
        Thread = 5,
    }
}

impl Request {
    pub(super) fn encode(self) -> [u8; PACKET] {
        let mut packet = [0; PACKET];
        (packet[0], packet[2]) = match self {
            Self::Sync => (2, NONE),
            Self::Freeze { level } => (3, level),
            Self::Release => (4, NONE),
        };
        packet[1] = NONE;
        packet
    }

    /// `None` for a packet that is no request.
    pub(super) fn decode(packet: &[u8]) -> Option<Self> {
        let packet: &[u8; PACKET] = packet.try_into().ok()?;
        match packet[0] {
            2 => Some(Self::Sync),
            3 => Some(Self::Freeze { level: packet[2] }),
            4 => Some(Self::Release),
            _ => None,
        }
    }
}

impl Answer {
    pub(super) fn encode(self) -> [u8; PACKET] {
        let raw = |errno: Option<Errno>| errno.map_or(0, Errno::raw_os_error);
        match self {
            Self::Ready { memory_locked, expedites } => {
                packet(16, NONE, 0, u8::from(memory_locked) | u8::from(expedites) << 1, 0, None)
            }
            Self::Refused { refusal, member, errno } => {
                packet(17, member.unwrap_or(NONE), refusal as u8, 0, raw(errno), None)
            }
            Self::Synced(call) => packet(18, call.member, 0, 0, 0, Some(call)),
            Self::Frozen(call) => packet(19, call.member, 0, 0, 0, Some(call)),
            Self::Thawed(call, cause) => packet(20, call.member, cause as u8, 0, 0, Some(call)),
            Self::Lost(call, cause) => packet(21, call.member, cause as u8, 0, 0, Some(call)),
            Self::Expedited { set_ns, restored_ns, restored } => {
                let switch = Call { member: NONE, called_ns: set_ns, returned_ns: restored_ns };
                packet(23, NONE, 0, u8::from(restored), 0, Some(switch))
            }
            Self::Failed { member, step, errno } => packet(22, member, step as u8, 0, raw(Some(errno)), None),
        }
    }

    /// `None` for a packet that is no answer.
    pub(super) fn decode(packet: &[u8]) -> Option<Self> {
        let packet: &[u8; PACKET] = packet.try_into().ok()?;
        let errno = i32::from_le_bytes(packet[4..8].try_into().ok()?);
        // The kernel's MAX_ERRNO; rustix takes no other number.
        let errno = (1..4096).contains(&errno).then(|| Errno::from_raw_os_error(errno));
        let call = Call {
            member: packet[1],
            called_ns: u64::from_le_bytes(packet[8..16].try_into().ok()?),
            returned_ns: u64::from_le_bytes(packet[16..24].try_into().ok()?),
        };
        Some(match packet[0] {
            16 => Self::Ready { memory_locked: packet[3] & 1 != 0, expedites: packet[3] & 2 != 0 },
            17 => Self::Refused {
                refusal: Refusal::from_byte(packet[2])?,
                member: (packet[1] != NONE).then_some(packet[1]),
                errno,
            },
            18 => Self::Synced(call),
            19 => Self::Frozen(call),
            20 => Self::Thawed(call, Cause::from_byte(packet[2])?),
            21 => Self::Lost(call, Cause::from_byte(packet[2])?),
            23 => {
                Self::Expedited { set_ns: call.called_ns, restored_ns: call.returned_ns, restored: packet[3] & 1 != 0 }
            }
            22 => Self::Failed { member: packet[1], step: Step::from_byte(packet[2])?, errno: errno? },
            _ => return None,
        })
    }
}

fn packet(kind: u8, member: u8, detail: u8, flags: u8, errno: i32, call: Option<Call>) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    packet[..4].copy_from_slice(&[kind, member, detail, flags]);
    packet[4..8].copy_from_slice(&errno.to_le_bytes());
    if let Some(call) = call {
        packet[8..16].copy_from_slice(&call.called_ns.to_le_bytes());
        packet[16..24].copy_from_slice(&call.returned_ns.to_le_bytes());
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_comes_back_as_it_went() {
        for request in [Request::Sync, Request::Freeze { level: 7 }, Request::Release] {
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        let call = Call { member: 63, called_ns: 1, returned_ns: u64::MAX };
        for answer in [
            Answer::Ready { memory_locked: true, expedites: false },
            Answer::Refused { refusal: Refusal::Ledger, member: None, errno: Some(Errno::NOSPC) },
            Answer::Refused { refusal: Refusal::Member, member: Some(3), errno: None },
            Answer::Synced(call),
            Answer::Frozen(call),
            Answer::Thawed(call, Cause::Release),
            Answer::Lost(call, Cause::Abandoned),
            Answer::Failed { member: 0, step: Step::Freeze, errno: Errno::BUSY },
            Answer::Expedited { set_ns: 7, restored_ns: 8, restored: true },
        ] {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for packet in [&[][..], &[2], &[0; PACKET], &[255; PACKET], &[20; PACKET], &[22; PACKET], &[2; PACKET + 1]] {
            assert_eq!(Request::decode(packet), None);
            assert_eq!(Answer::decode(packet), None);
        }
    }
}
