//! Loop devices: attaching an image file to a free `/dev/loopN` and detaching it again (loop(4)).

use std::fs::{File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use linux_raw_sys::loop_device::{self as abi, loop_config};

/// Another process may take the free number that we were told; so many times it is asked for again.
const ATTACH_TRIES: u32 = 64;

/// What an attached device does besides reading and writing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// The kernel detaches it with its last user (LO_FLAGS_AUTOCLEAR).
    pub autoclear: bool,
    /// No writes (LO_FLAGS_READ_ONLY).
    pub read_only: bool,
}

/// An attached loop device, open. Dropping it closes the descriptor and no more: the device stays attached unless it was
/// attached with autoclear and nothing else uses it.
#[derive(Debug)]
pub struct LoopDevice {
    device: File,
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches `image` to a free loop device.
    ///
    /// # Errors
    /// No permission, no such image, or no free loop device after 64 tries.
    pub fn attach(image: &Path, options: AttachOptions) -> io::Result<Self> {
        let backing = OpenOptions::new().read(true).write(!options.read_only).open(image)?;
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        // SAFETY: loop_config is plain integers and arrays of integers, for which all-zero is a value.
        let mut config: loop_config = unsafe { mem::zeroed() };
        config.fd = u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?;
        if options.autoclear {
            config.info.lo_flags |= abi::LO_FLAGS_AUTOCLEAR as u32;
        }
        if options.read_only {
            config.info.lo_flags |= abi::LO_FLAGS_READ_ONLY as u32;
        }
        // The name is for `losetup -l` only; the kernel takes at most 63 bytes and a NUL.
        for (to, from) in config.info.lo_file_name[..63].iter_mut().zip(image.as_os_str().as_encoded_bytes()) {
            *to = *from;
        }

        for _ in 0..ATTACH_TRIES {
            // SAFETY: LOOP_CTL_GET_FREE takes no argument.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), abi::LOOP_CTL_GET_FREE as libc::Ioctl) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = OpenOptions::new().read(true).write(!options.read_only).open(&path)?;
            // SAFETY: LOOP_CONFIGURE reads one loop_config, which lives through the call.
            if unsafe { libc::ioctl(device.as_raw_fd(), abi::LOOP_CONFIGURE as libc::Ioctl, &config) } == 0 {
                return Ok(Self { device, path });
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EBUSY) {
                return Err(error);
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "no free loop device"))
    }

    /// `/dev/loopN`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Detaches the image. While the device is mounted the kernel puts it off until the last user is gone.
    ///
    /// # Errors
    /// ENXIO when it is not attached any more.
    pub fn detach(self) -> io::Result<()> {
        // SAFETY: LOOP_CLR_FD takes no argument.
        if unsafe { libc::ioctl(self.device.as_raw_fd(), abi::LOOP_CLR_FD as libc::Ioctl) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}
