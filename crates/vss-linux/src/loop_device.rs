//! Loop devices: attaching an image file to a free `/dev/loopN`, detaching it again, and asking what is attached (loop(4)).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use linux_raw_sys::loop_device::{self as abi, loop_config, loop_info64};

/// Another process may take the free number that we were told; so many times it is asked for again.
const ATTACH_TRIES: u32 = 64;

/// What an attached device does besides reading and writing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// The kernel detaches it with its last user (LO_FLAGS_AUTOCLEAR).
    pub autoclear: bool,
    /// No writes (LO_FLAGS_READ_ONLY).
    pub read_only: bool,
    /// Where the device begins in the image, in bytes.
    pub offset: u64,
    /// How many bytes of the image it has; 0: all from the offset on.
    pub size_limit: u64,
}

/// What an attached device says of itself (LOOP_GET_STATUS64).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopStatus {
    /// The image's device number, as stat(2) has it.
    pub device: u64,
    /// The image's inode number.
    pub inode: u64,
    /// Where the device begins in the image, in bytes.
    pub offset: u64,
    /// How many bytes of the image it has; 0: all from the offset on.
    pub size_limit: u64,
    /// The data are encrypted on their way (kernels before 5.16).
    pub is_encrypted: bool,
}

/// What the loop device `device` (`/dev/loopN`) is attached to.
///
/// # Errors
/// `ENXIO` when nothing is attached; `ENOTTY` when it is no loop device.
pub fn status(device: &Path) -> io::Result<LoopStatus> {
    let device = File::open(device)?;
    // SAFETY: loop_info64 is plain integers and arrays of integers, for which all-zero is a value.
    let mut info: loop_info64 = unsafe { mem::zeroed() };
    // SAFETY: LOOP_GET_STATUS64 writes one loop_info64, which lives through the call.
    if unsafe { libc::ioctl(device.as_raw_fd(), abi::LOOP_GET_STATUS64 as libc::Ioctl, &mut info) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(LoopStatus {
        device: info.lo_device,
        inode: info.lo_inode,
        offset: info.lo_offset,
        size_limit: info.lo_sizelimit,
        is_encrypted: info.lo_encrypt_type != 0,
    })
}

/// The image of the block device with this directory in sysfs, by the kernel's words: ` (deleted)` is appended to the name of
/// a file that was; a file of a mount that is attached nowhere is named from that mount's root. None when it is no attached
/// loop device.
#[must_use]
pub fn backing_file(sysfs: &Path) -> Option<PathBuf> {
    let mut text = fs::read(sysfs.join("loop/backing_file")).ok()?;
    if text.last() == Some(&b'\n') {
        text.pop();
    }
    Some(PathBuf::from(OsString::from_vec(text)))
}

/// As [`backing_file`], of the device with these numbers; none when it is no loop device.
#[must_use]
pub fn backing_file_of(major: u32, minor: u32) -> Option<PathBuf> {
    /// Of every loop device (admin-guide/devices.txt).
    const LOOP_MAJOR: u32 = 7;
    if major == LOOP_MAJOR { backing_file(&PathBuf::from(format!("/sys/dev/block/{major}:{minor}"))) } else { None }
}

/// True when the attached loop device `device` (`/dev/loopN`) shows the file with these numbers of stat(2), of which `backing` is
/// what [`attached`] says. The device is opened only when the name does not tell: one that is open is not detached. Waits for
/// the file system of the backing file.
#[must_use]
pub fn shows(device: &Path, backing: &Path, file: (u64, u64)) -> bool {
    // The mark of a file that was deleted, or the end of a name.
    let is_marked = backing.as_os_str().as_bytes().ends_with(b" (deleted)");
    match fs::symlink_metadata(backing) {
        Ok(found) if !is_marked => (found.dev(), found.ino()) == file,
        _ => status(device).is_ok_and(|status| (status.device, status.inode) == file),
    }
}

/// True when the kernel detaches the attached loop device `device` (`/dev/loopN`) with its last user.
#[must_use]
pub fn is_autoclear(device: &Path) -> bool {
    let name = device.file_name().unwrap_or_default();
    let flag = fs::read(Path::new("/sys/class/block").join(name).join("loop/autoclear"));
    flag.is_ok_and(|flag| flag.starts_with(b"1"))
}

/// Every attached loop device, as `/dev/loopN`, with [`backing_file`].
///
/// # Errors
/// sysfs is not mounted.
pub fn attached() -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut devices = Vec::new();
    for entry in fs::read_dir("/sys/class/block")? {
        let entry = entry?;
        if let Some(image) = backing_file(&entry.path()) {
            devices.push((Path::new("/dev").join(entry.file_name()), image));
        }
    }
    Ok(devices)
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
        Self::attach_file(&backing, image, options)
    }

    /// As [`LoopDevice::attach`], of an image that is open, for writing too unless the device is to be read-only; `name` is
    /// what losetup(8) shows.
    ///
    /// # Errors
    /// As [`LoopDevice::attach`].
    pub fn attach_file(backing: impl AsFd, name: &Path, options: AttachOptions) -> io::Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        // SAFETY: loop_config is plain integers and arrays of integers, for which all-zero is a value.
        let mut config: loop_config = unsafe { mem::zeroed() };
        config.fd = u32::try_from(backing.as_fd().as_raw_fd()).map_err(io::Error::other)?;
        config.info.lo_offset = options.offset;
        config.info.lo_sizelimit = options.size_limit;
        if options.autoclear {
            config.info.lo_flags |= abi::LO_FLAGS_AUTOCLEAR as u32;
        }
        if options.read_only {
            config.info.lo_flags |= abi::LO_FLAGS_READ_ONLY as u32;
        }
        // The name is for `losetup -l` only; the kernel takes at most 63 bytes and a NUL.
        for (to, from) in config.info.lo_file_name[..63].iter_mut().zip(name.as_os_str().as_bytes()) {
            *to = *from;
        }

        for _ in 0..ATTACH_TRIES {
            // SAFETY: LOOP_CTL_GET_FREE takes no argument.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), abi::LOOP_CTL_GET_FREE as libc::Ioctl) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = match OpenOptions::new().read(true).write(!options.read_only).open(&path) {
                Ok(device) => device,
                // Another has attached it since, and it is just being detached.
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) => continue,
                Err(error) => return Err(error),
            };
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
