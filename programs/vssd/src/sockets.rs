//! Sockets made by systemd (sd_listen_fds(3)): `FileDescriptorName=requester` and `=writer`.

use anyhow::{Context, bail};
use std::os::unix::net::UnixListener;

/// The two sockets that systemd made; none when it made none.
///
/// # Errors
/// Only one of them was passed, or one with another name.
pub(crate) fn inherited() -> anyhow::Result<Option<(UnixListener, UnixListener)>> {
    let (mut requester, mut writer) = (None, None);
    for (number, name) in sd_notify::listen_fds_with_names().context("cannot take over the sockets of systemd")? {
        let socket = vss_linux::inherited::take(number).context("cannot take over the sockets of systemd")?;
        match name.as_str() {
            "requester" => requester = Some(UnixListener::from(socket)),
            "writer" => writer = Some(UnixListener::from(socket)),
            other => bail!("systemd passed a socket named {other:?}; wanted are \"requester\" and \"writer\""),
        }
    }
    match (requester, writer) {
        (Some(requester), Some(writer)) => Ok(Some((requester, writer))),
        (None, None) => Ok(None),
        _ => bail!("systemd passed one socket; wanted are both, \"requester\" and \"writer\""),
    }
}
