//! One run of one program: started, watched, and measured by the kernel.
//!
//! Times and memory come from the kernel's account of the finished process (`wait4`), so that no program reports
//! its own. A program that takes too long, or too much memory, is killed, and that is its result: a comparison that
//! waits for ever, or that drives the machine into the ground, compares nothing.
//!
//! ```text
//! start, with standard output and error in files (a pipe could fill up)
//! every 20 ms until the process has ended:
//!     deadline passed?                kill it: `TookTooLong`
//!     resident set above the limit?   kill it: `TookTooMuch`
//! reap it, take its account
//! ```
//! The wait is a `poll` on a descriptor of the process, which a process that is reaped and replaced by another one
//! with its number cannot confuse.
//!
//! One trap: the peak that the kernel reports for a process contains that of the program which started it, because
//! the child has the parent's memory until it has become another program. So a peak below our own is not
//! its own, and [`Account::peak_is_floor`] says so; who knows better (the program itself) is asked then.
//!
//! # Safety
//! Three system calls are made: `pidfd_open` on the process that was just started and is not reaped yet, `poll` on
//! its descriptor, and `wait4`, which fills structures of ours. The process is reaped here and nowhere else: the
//! handle of the standard library is dropped without having waited.

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often the limits are looked at.
const PERIOD: Duration = Duration::from_millis(20);

/// A program, what it is told, and what its environment has besides ours.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The file to run.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables that are set for it.
    pub environment: Vec<(String, String)>,
}

impl Invocation {
    /// As one would type it, with the program's name alone.
    pub fn line(&self) -> String {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let environment = self.environment.iter().map(|(key, value)| format!("{key}={value}"));
        environment
            .chain([name])
            .chain(self.arguments.iter().cloned())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// What a run may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Until it is killed.
    pub time: Duration,
    /// Resident bytes until it is killed.
    pub memory: u64,
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal that was not ours.
    Signal(i32),
    /// We killed it: the time was over.
    TookTooLong,
    /// We killed it: it had more memory than it may.
    TookTooMuch,
}

/// What the kernel has counted for a process.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// From the start to the end.
    pub wall: Duration,
    /// CPU time outside the kernel.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// The largest resident set, in bytes.
    pub peak: u64,
    /// The peak is ours, not the program's, which had less.
    pub peak_is_floor: bool,
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub ending: Ending,
    /// What it took.
    pub account: Account,
    /// What it printed.
    pub output: String,
    /// What it complained about.
    pub complaints: String,
}

/// Runs a program to its end, or to ours. The two output files are made in `folder`.
///
/// # Errors
/// When it cannot be started, or the system refuses to tell about it.
pub fn run(invocation: &Invocation, limits: Limits, folder: &Path) -> io::Result<Finished> {
    let (output, complaints) = (folder.join("stdout"), folder.join("stderr"));
    let own_peak = own_peak();
    let started = Instant::now();
    let mut child = Command::new(&invocation.program)
        .args(&invocation.arguments)
        .envs(invocation.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(File::create(&output)?)
        .stderr(File::create(&complaints)?)
        .spawn()?;
    let killed = watch(&mut child, started, limits);
    let (status, usage) = reap(&child)?;
    let wall = started.elapsed();
    let ending = match (killed?, status.code()) {
        (Some(ending), _) => ending,
        (None, Some(code)) => Ending::Exited(code),
        (None, None) => Ending::Signal(status.signal().unwrap_or(0)),
    };
    let peak = u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024);
    let account = Account {
        wall,
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        peak,
        peak_is_floor: peak <= own_peak,
    };
    let text = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Finished { ending, account, output: text(output)?, complaints: text(complaints)? })
}

/// Waits until the process has ended, which it does by our hand if it must. On an error it is killed too:
/// nobody else would end it.
fn watch(child: &mut Child, started: Instant, limits: Limits) -> io::Result<Option<Ending>> {
    let result = watch_limits(child, started, limits);
    if !matches!(result, Ok(None)) {
        child.kill()?;
    }
    result
}

fn watch_limits(child: &Child, started: Instant, limits: Limits) -> io::Result<Option<Ending>> {
    let descriptor = descriptor_of(child)?;
    while !has_ended(&descriptor, PERIOD)? {
        if started.elapsed() >= limits.time {
            return Ok(Some(Ending::TookTooLong));
        }
        if resident(child.id()) > limits.memory {
            return Ok(Some(Ending::TookTooMuch));
        }
    }
    Ok(None)
}

/// A descriptor of the process, which becomes readable when it has ended.
fn descriptor_of(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers and returns one. The process exists: we have not reaped it.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id() as libc::pid_t, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number is a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as i32) })
}

/// Waits for so long at most.
fn has_ended(descriptor: &OwnedFd, at_most: Duration) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one `pollfd` of ours, and one is what is announced.
    let ready = unsafe { libc::poll(&raw mut entry, 1, at_most.as_millis() as i32) };
    if ready >= 0 {
        return Ok(ready > 0);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) }
}

/// Waits for the end of a process that is about to end, and takes its account.
fn reap(child: &Child) -> io::Result<(ExitStatus, libc::rusage)> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to whole objects of ours, which the call may write.
        let reaped = unsafe {
            libc::wait4(child.id() as libc::pid_t, &raw mut status, 0, usage.as_mut_ptr())
        };
        if reaped >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: it was zeroed, which is a valid value of a structure of integers, and then filled.
    Ok((ExitStatus::from_raw(status), unsafe { usage.assume_init() }))
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let microseconds = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(microseconds)
}

/// The resident set of a process in bytes; 0 when it has ended.
fn resident(process: u32) -> u64 {
    field(&format!("/proc/{process}/status"), "VmRSS:")
}

/// The largest resident set of this program so far, in bytes.
fn own_peak() -> u64 {
    field("/proc/self/status", "VmHWM:")
}

/// A size in a file of lines like `VmRSS:   1234 kB`.
fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENEROUS: Limits = Limits { time: Duration::from_secs(3600), memory: 1 << 40 };

    fn shell(script: &str, limits: Limits) -> Finished {
        let name = format!(
            "spanheap-bench-child-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        );
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder for temporary files");
        let invocation = Invocation {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: vec![("GREETING".into(), "good day".into())],
        };
        let finished = run(&invocation, limits, &folder).expect("a shell");
        fs::remove_dir_all(&folder).expect("it is ours");
        finished
    }

    #[test]
    fn a_run_is_told_with_all_that_it_said() {
        let finished = shell("echo $GREETING; echo bad >&2; exit 3", GENEROUS);
        assert_eq!(finished.ending, Ending::Exited(3));
        assert_eq!(
            (finished.output.as_str(), finished.complaints.as_str()),
            ("good day\n", "bad\n")
        );
        assert!(finished.account.peak > 0);
    }

    #[test]
    fn a_crash_is_told_as_such() {
        assert_eq!(shell("kill -SEGV $$", GENEROUS).ending, Ending::Signal(libc::SIGSEGV));
    }

    #[test]
    fn a_run_that_hangs_is_ended() {
        let limits = Limits { time: Duration::from_millis(50), ..GENEROUS };
        assert_eq!(shell("exec sleep 600", limits).ending, Ending::TookTooLong);
    }

    #[test]
    fn a_run_that_takes_too_much_memory_is_ended() {
        let limits = Limits { memory: 1 << 12, ..GENEROUS };
        assert_eq!(shell("exec sleep 600", limits).ending, Ending::TookTooMuch);
    }

    #[test]
    fn the_time_of_the_processor_is_counted() {
        let finished = shell("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done", GENEROUS);
        let Account { user, wall, .. } = finished.account;
        assert!(user > Duration::ZERO && wall > Duration::ZERO, "{user:?} of {wall:?}");
    }

    #[test]
    fn what_cannot_be_started_is_an_error() {
        let invocation =
            Invocation { program: "/nowhere".into(), arguments: vec![], environment: vec![] };
        assert!(run(&invocation, GENEROUS, &std::env::temp_dir()).is_err());
        assert_eq!(invocation.line(), "nowhere");
    }
}
