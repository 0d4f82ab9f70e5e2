//! The service on demand: connecting to an instance, and starting it when nobody serves it (design 2.3).
//!
//! A command holds `start.lock` while it starts vssd, so of two commands at once only one does; the other one waits and
//! connects. vssd itself holds `instance.lock` while it runs. A socket that refuses was left behind by a killed vssd.

use crate::{Instance, failure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use vss_api::client::{Client, ClientError};
use vss_api::management;
use vss_model::{VssCode, VssError};

/// How long a command tries to reach a service that somebody else is starting or ending.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest start of the service: it may have to sweep holds and undo creations first.
const READY: Duration = Duration::from_secs(120);
/// Longest time for an answer to the first question; the service answers it at any time, also during a hold (design 3).
const STATUS: Duration = Duration::from_secs(10);
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(20);
/// A log larger than this is emptied before the next start; the directory is in memory.
const LOG_LIMIT: u64 = 1 << 20;
/// How much of the log is searched for the reason of a failed start.
const LOG_QUOTE: u64 = 64 << 10;
/// Where programs of the system lie, for the hooks of the in-box writers.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Beginning of the names of variables that are the house's own.
const OWN_VARIABLES: &str = "VSS_";
/// Where packages put programs that are not for people.
const LIBEXEC: &str = "/usr/libexec/vss";

/// A connection to the instance's service, which is started when it does not run and the caller is root. The service has
/// answered on the connection, so it is not one that is just ending.
///
/// # Errors
/// `E_ACCESSDENIED` without the right to connect or to start; `E_INVALIDARG` when a directory of the instance cannot be one;
/// `VSS_E_UNEXPECTED` when the service does not come up, with what it said.
pub fn connect(instance: &Instance) -> Result<Client, VssError> {
    let mut deadline = Instant::now() + CONNECT;
    loop {
        let failure = match try_connect(instance) {
            Ok(client) => return Ok(client),
            Err(ClientError::Io(failure)) => failure,
            // Asking for the status fails in no other way than this: the service was just ending.
            Err(ClientError::Vss(error)) if error.code == VssCode::Unexpected => {
                io::Error::new(io::ErrorKind::ConnectionReset, error.to_string())
            }
            Err(error) => return Err(failure::of_call(error)),
        };
        match failure.kind() {
            io::ErrorKind::PermissionDenied => return Err(no_right(instance)),
            kind if is_absence(kind) && !rustix::process::geteuid().is_root() => return Err(not_running(instance)),
            kind if is_absence(kind) => {}
            io::ErrorKind::NotADirectory => return Err(no_directory(instance.runtime_dir(), &failure)),
            _ => return Err(unreachable(instance, &failure)),
        }
        make_directory(instance.runtime_dir(), 0o755)?;
        match try_lock(&instance.start_lock_file())? {
            Some(_starter) => {
                // Another command may have started it since we looked.
                if let Ok(client) = try_connect(instance) {
                    return Ok(client);
                }
                match start(instance) {
                    Ok(()) => continue,
                    // A service that is just ending, or that somebody else has started, is no reason to fail.
                    Err(_) if try_lock(&instance.lock_file())?.is_none() => {}
                    Err(error) => return Err(error),
                }
            }
            // Another command is starting it, for as long as that takes.
            None => deadline = Instant::now() + CONNECT,
        }
        if Instant::now() >= deadline {
            return Err(unreachable(instance, &failure));
        }
        std::thread::sleep(PAUSE);
    }
}

fn try_connect(instance: &Instance) -> Result<Client, ClientError> {
    let mut client = Client::connect(instance.requester_socket())?;
    client.set_timeout(Some(STATUS))?;
    client.call_management::<management::Status>(&management::Call::GetStatus)?;
    client.set_timeout(None)?;
    Ok(client)
}

/// True for the errors of a socket that nobody serves: absent, left behind, or just being closed.
fn is_absence(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    matches!(kind, NotFound | ConnectionRefused | ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof)
}

/// Takes the lock file; none while somebody else has it. It is given back when the file is dropped.
fn try_lock(path: &Path) -> Result<Option<File>, VssError> {
    let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let lock = lock.map_err(|error| failed("open the lock", path, &error))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(lock)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(failed("lock", path, &errno.into())),
    }
}

/// Starts vssd and waits until its sockets listen.
fn start(instance: &Instance) -> Result<(), VssError> {
    make_directory(instance.state_dir(), 0o700)?;
    let program = find_program("vssd")?;
    let (log, quote_from) = open_log(&instance.log_file())?;
    let mut command = Command::new(&program);
    command
        .arg("--idle-exit")
        .arg("--runtime-dir")
        .arg(instance.runtime_dir())
        .arg("--state-dir")
        .arg(instance.state_dir())
        .env_clear()
        .envs(environment())
        // It outlives us: it must not keep the caller's working directory busy, nor its files open.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    vss_linux::child::let_go(&mut command);
    let mut child = command.spawn().map_err(|error| failed("start", &program, &error))?;
    let ready = match child.stdout.take() {
        Some(stdout) => wait_until_ready(stdout),
        None => Err(io::Error::other("its standard output is not a pipe")),
    };
    match ready {
        Ok(()) => Ok(()),
        Err(error) => Err(start_failed(instance, &mut child, &error, quote_from)),
    }
}

/// What the service inherits of our variables. It may go on serving others, and its writers run hooks: the passwords and the
/// search path of the backup that happened to start it are not for them.
fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    let own = std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(OWN_VARIABLES.as_bytes()));
    own.chain([("PATH".into(), PATH.into())])
}

/// Finds a program of the house beside the running one, else in `/usr/libexec/vss`; never by PATH.
///
/// # Errors
/// `VSS_E_UNEXPECTED`, naming both places.
pub fn find_program(name: &str) -> Result<PathBuf, VssError> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    let installed = Path::new(LIBEXEC).join(name);
    beside.clone().into_iter().chain([installed]).find(|path| path.is_file()).ok_or_else(|| {
        let beside = beside.as_deref().and_then(Path::parent).unwrap_or(Path::new("/")).display().to_string();
        VssError::new(VssCode::Unexpected, format!("{name} is neither in {beside} nor in {LIBEXEC}"))
            .with_hint("Build all programs with `cargo build --release`, or install the package")
    })
}

/// Makes a directory that is not there yet, with this mode whatever our umask is: it is for all users of the service.
fn make_directory(path: &Path, mode: u32) -> Result<(), VssError> {
    if path.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(mode)))
        .map_err(|error| no_directory(path, &error))
}

/// The log, open for appending, and its length.
fn open_log(path: &Path) -> Result<(File, u64), VssError> {
    let open = || -> io::Result<(File, u64)> {
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        if log.metadata()?.len() > LOG_LIMIT {
            log.set_len(0)?;
        }
        let length = log.metadata()?.len();
        Ok((log, length))
    };
    open().map_err(|error| failed("open the log", path, &error))
}

/// Waits for the line `ready`.
fn wait_until_ready(mut stdout: ChildStdout) -> io::Result<()> {
    let deadline = Instant::now() + READY;
    let mut said = Vec::new();
    while !said.ends_with(b"\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::TimedOut)?;
        match poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(io::Error::other(format!("not ready after {} s", READY.as_secs()))),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let mut byte = [0];
        if stdout.read(&mut byte)? == 0 {
            return Err(io::Error::other("it ended"));
        }
        said.push(byte[0]);
        if said.len() > 64 {
            break;
        }
    }
    if said == b"ready\n" { Ok(()) } else { Err(io::Error::other("it said something else than `ready`")) }
}

fn start_failed(instance: &Instance, child: &mut Child, error: &io::Error, quote_from: u64) -> VssError {
    let path = instance.log_file();
    let said = reason(&quote(&path, quote_from).unwrap_or_default());
    let end = match child.try_wait() {
        Ok(Some(status)) => status.to_string(),
        _ => error.to_string(),
    };
    let message = if said.is_empty() {
        format!("vssd did not start: {end}")
    } else {
        format!("vssd did not start ({end}): {said}")
    };
    VssError::new(VssCode::Unexpected, message).with_hint(format!("Its log is {}", path.display()))
}

/// What the log says from `from` on, at most 64 KiB of it.
fn quote(path: &Path, from: u64) -> io::Result<String> {
    let mut log = File::open(path)?;
    log.seek(SeekFrom::Start(from))?;
    let mut said = Vec::new();
    log.take(LOG_QUOTE).read_to_end(&mut said)?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// What a log says of a failed start, as one line: its last error with its causes, without the stack.
fn reason(log: &str) -> String {
    const ERROR: &str = "Error: ";
    let log = log.split("\nStack backtrace:").next().unwrap_or(log);
    let error = log.rfind(ERROR).map_or(log, |at| &log[at + ERROR.len()..]);
    let lines = error.lines().map(|line| {
        let line = line.trim();
        // Causes are numbered when there are several.
        line.split_once(": ").filter(|(number, _)| number.parse::<u32>().is_ok()).map_or(line, |(_, cause)| cause)
    });
    lines.filter(|line| !line.is_empty() && *line != "Caused by:").collect::<Vec<_>>().join(": ")
}

fn failed(what: &str, path: &Path, error: &io::Error) -> VssError {
    let (code, hint) = if error.kind() == io::ErrorKind::PermissionDenied {
        (VssCode::AccessDenied, "Use sudo")
    } else {
        (VssCode::Unexpected, "Is its file system full or read-only?")
    };
    VssError::new(code, format!("Cannot {what} {}: {error}", path.display())).with_hint(hint)
}

fn no_directory(path: &Path, error: &io::Error) -> VssError {
    use io::ErrorKind::{AlreadyExists, NotADirectory, NotFound};
    let failure = failed("make the directory", path, error);
    match error.kind() {
        // Only a recursive mkdir where nothing can be made, as in /proc, does not find something.
        AlreadyExists | NotADirectory | NotFound => VssError { code: VssCode::InvalidArgument, ..failure }
            .with_hint("Name another directory with --runtime-dir or --state-dir"),
        _ => failure,
    }
}

fn no_right(instance: &Instance) -> VssError {
    VssError::new(VssCode::AccessDenied, format!("No right to connect to {}", instance.requester_socket().display()))
        .with_hint("Run the command as root (sudo), or join the group vss")
}

fn not_running(instance: &Instance) -> VssError {
    let message = format!("No service runs at {} and only root may start it", instance.runtime_dir().display());
    VssError::new(VssCode::AccessDenied, message)
        .with_hint("Run the command as root (sudo), or start the service: systemctl start vssd")
}

fn unreachable(instance: &Instance, error: &io::Error) -> VssError {
    let message = format!("The service at {} does not answer: {error}", instance.requester_socket().display());
    let hint = format!("Is a vssd hanging? See {}", instance.log_file().display());
    VssError::new(VssCode::Unexpected, message).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn instance(directory: &Path) -> Instance {
        Instance::new(directory.join("run"), directory.join("state"))
    }

    #[test]
    fn a_lock_is_taken_once_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("start.lock");
        let held = try_lock(&path).unwrap();
        assert!(held.is_some() && try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(try_lock(&path).unwrap().is_some());
    }

    #[test]
    fn a_stale_socket_and_a_missing_one_are_absence() {
        let directory = tempfile::tempdir().unwrap();
        let instance = instance(directory.path());
        let absent = || matches!(try_connect(&instance), Err(ClientError::Io(error)) if is_absence(error.kind()));
        assert!(absent());
        std::fs::create_dir(instance.runtime_dir()).unwrap();
        drop(UnixListener::bind(instance.requester_socket()).unwrap());
        assert!(absent());
    }

    #[test]
    fn readiness_is_the_line_ready_and_nothing_else() {
        let say = |script: &str| {
            let mut child = Command::new("/bin/sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
            let ready = wait_until_ready(child.stdout.take().unwrap());
            child.wait().unwrap();
            ready
        };
        say("echo ready").unwrap();
        assert!(say("echo no").is_err());
        assert!(say("exit 1").is_err());
        assert!(say("printf ready").is_err());
    }

    #[test]
    fn the_reason_is_the_last_error_in_one_line() {
        let log =
            "INFO swept\nError: cannot start\n\nCaused by:\n    0: the catalogue\n\nStack backtrace:\n   0: main\n";
        assert_eq!(reason(log), "cannot start: the catalogue");
        assert_eq!(reason("killed\n"), "killed");
        assert_eq!(reason(""), "");
    }

    #[test]
    fn the_service_inherits_no_secret_and_no_search_path() {
        let inherited: Vec<(OsString, OsString)> = environment().collect();
        assert!(inherited.contains(&("PATH".into(), PATH.into())));
        assert!(inherited.iter().all(|(name, _)| name == "PATH" || name.to_string_lossy().starts_with(OWN_VARIABLES)));
    }

    #[test]
    fn a_missing_program_names_both_places() {
        let error = find_program("no-such-program-of-ours").unwrap_err();
        assert!(error.message.contains(LIBEXEC) && !error.hint.is_empty());
    }
}
