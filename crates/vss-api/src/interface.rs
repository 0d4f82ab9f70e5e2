//! What the service says of itself: the interfaces, their description (IDL), and who made it.
//!
//! The descriptions are the files in `interfaces/`: they are what `GetInterfaceDescription` answers, and the reference of the
//! meaning and the errors of every call.

use crate::{management, requester, server::Face, writer};

/// Who made the service, as `GetInfo` tells it.
pub const VENDOR: &str = "VSS for Linux";
/// The service's name, as `GetInfo` tells it.
pub const PRODUCT: &str = "vssd";
/// The service's version, as `GetInfo` tells it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Where to read more, as `GetInfo` tells it.
pub const URL: &str = "https://linuxvss.org";

/// The interface that every Varlink service has.
pub const SERVICE: &str = "org.varlink.service";

/// Description of `org.linuxvss.Requester`.
pub const REQUESTER: &str = include_str!("../interfaces/org.linuxvss.Requester.varlink");
/// Description of `org.linuxvss.Writer`.
pub const WRITER: &str = include_str!("../interfaces/org.linuxvss.Writer.varlink");
/// Description of `org.linuxvss.Management`.
pub const MANAGEMENT: &str = include_str!("../interfaces/org.linuxvss.Management.varlink");

/// Description of `org.varlink.service`, as <https://varlink.org/Service> has it.
const VARLINK_SERVICE: &str = include_str!("../interfaces/org.varlink.service.varlink");

/// The methods of `org.linuxvss.Writer` that the service calls and the writer answers.
pub const WRITER_EVENTS: [&str; 9] = [
    "org.linuxvss.Writer.Identify",
    "org.linuxvss.Writer.PrepareBackup",
    "org.linuxvss.Writer.PrepareSnapshot",
    "org.linuxvss.Writer.Freeze",
    "org.linuxvss.Writer.Thaw",
    "org.linuxvss.Writer.PostSnapshot",
    "org.linuxvss.Writer.Abort",
    "org.linuxvss.Writer.BackupComplete",
    "org.linuxvss.Writer.BackupShutdown",
];

/// The interfaces of a socket, sorted as `GetInfo` tells them.
#[must_use]
pub const fn interfaces(face: Face) -> &'static [&'static str] {
    match face {
        Face::Requester => &[management::INTERFACE, requester::INTERFACE, SERVICE],
        Face::Writer => &[writer::INTERFACE, SERVICE],
    }
}

/// The description of an interface that a socket speaks.
#[must_use]
pub fn description(face: Face, interface: &str) -> Option<&'static str> {
    match (face, interface) {
        (_, SERVICE) => Some(VARLINK_SERVICE),
        (Face::Requester, requester::INTERFACE) => Some(REQUESTER),
        (Face::Requester, management::INTERFACE) => Some(MANAGEMENT),
        (Face::Writer, writer::INTERFACE) => Some(WRITER),
        _ => None,
    }
}
