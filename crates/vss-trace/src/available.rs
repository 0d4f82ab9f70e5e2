//! Whether this kernel and this process can trace at all, and what is missing.

use std::fs;
use std::path::Path;

use crate::error::TraceError;
use crate::kernel;
use crate::layout::{self, About};
use crate::load::{self, Marks};
use crate::pins;
use crate::target::Target;

/// The kernel's own types: what makes one compiled program fit every kernel.
const TYPES: &str = "/sys/kernel/btf/vmlinux";
/// First kernel with bpf_loop, by which long discards are marked.
const KERNEL: (u32, u32) = (5, 17);
/// Of linux/capability.h.
const CAP_SYS_ADMIN: u32 = 21;

/// Whether tracers can be made here. The programs are loaded for a look, and attached to nothing: 70 ms of CPU time, most of it
/// in the kernel's verifier.
///
/// # Errors
/// [`TraceError::Unavailable`] that names what is missing: types of the kernel (BTF), a newer kernel, a capability, the
/// BPF file system, a tracepoint, or what the kernel said when the programs were loaded, with its lockdown mode.
pub fn available() -> Result<(), TraceError> {
    if let Some(missing) = missing() {
        return Err(TraceError::Unavailable(missing));
    }
    // Loaded for a disk that is none.
    let nothing = Target { disk: (0, 0), start_sector: 0, sectors: 8, bio_based: false };
    let tried = load::load(&About::new(nothing, layout::possible_cpus()?), Marks::ALL);
    match tried {
        Ok(_) => Ok(()),
        Err(error) => Err(TraceError::Unavailable(format!("{error}{}", lockdown()))),
    }
}

fn missing() -> Option<String> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if version(&release).is_some_and(|version| version < KERNEL) {
        return Some(format!("tracing writes needs a kernel from {}.{} on, this is {release}", KERNEL.0, KERNEL.1));
    }
    if let Err(error) = fs::metadata(TYPES) {
        return Some(format!("tracing writes needs a kernel built with CONFIG_DEBUG_INFO_BTF ({TYPES}: {error})"));
    }
    if !kernel::has_capability(&[CAP_SYS_ADMIN]) {
        return Some("tracing writes needs CAP_SYS_ADMIN, which this process does not have".to_owned());
    }
    if let Err(error) = kernel::may_call_bpf() {
        return Some(format!(
            "tracing writes needs bpf(2), which is kept from this process by its container, a seccomp filter \
             (SystemCallFilter= of its unit) or the kernel's configuration ({error})"
        ));
    }
    pins::missing_bpffs()
}

/// Words about the kernel's lockdown (kernel_lockdown(7)), when it is on.
fn lockdown() -> String {
    let text = fs::read_to_string(Path::new("/sys/kernel/security/lockdown")).unwrap_or_default();
    let mode = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("none", |(mode, _)| mode);
    if mode == "none" { String::new() } else { format!("; the kernel is locked down ({mode})") }
}

/// The first two numbers of a release, `6.12.48+deb13-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|it: char| !it.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(version("6.12.48+deb13-amd64"), Some((6, 12)));
        assert!(version("5.4.0").unwrap() < KERNEL && version("5.17.0").unwrap() >= KERNEL);
        assert!(version("10.0-rc1").unwrap() > KERNEL);
        assert_eq!(version("none"), None);
    }
}
