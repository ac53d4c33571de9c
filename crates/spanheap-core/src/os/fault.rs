//! A handler for faults of memory, SIGSEGV and SIGBUS: it tells of those that are ours, and passes the others on.
//!
//! A library takes no signals, so this is off until a program asks for it ([`install`]). It stays for the life
//! of the process. Who knows which faults are ours, and what to say of them, is a [`Watch`]; this file knows signals.
//!
//! ```text
//! handle:  does the kernel name an address?  find(address)     -> nothing: pass on
//!          the first thread that gets here: tell, one write(2), end the process
//!          any other: wait for that           (the same once more: end plainly)
//! ```
//!
//! # Passing on
//! What was installed before is called as the kernel would have called it:
//!
//! | before | what is done |
//! |---|---|
//! | a function, with or without SA_SIGINFO | called, with as many arguments |
//! | with SA_RESETHAND | called once; after that the default action is what was before |
//! | SA_ONSTACK, SA_NODEFER, SA_RESTART, the mask | are ours, too, so it runs as it asked for |
//! | the default action | is restored; a fault is repeated, and what somebody has sent is sent again |
//! | SIG_IGN | what somebody has sent is ignored; a fault cannot be, and kills as it does by default |
//!
//! If there was no function, ours runs on the alternate stack of a thread that has one. The handler of the standard
//! library for overflows of stacks was there before any call of [`install`], so it is what faults at the end of a
//! stack are passed on to. A handler that is installed after ours gets everything first, and is itself
//! responsible for passing on.
//!
//! # In a signal handler
//! Nothing here allocates, takes a lock or touches a thread-local; `errno` is as it was. The text is formatted by
//! `core::fmt`, which needs nothing, into a static buffer, because alternate stacks are small: that of the standard
//! library has eight kibibytes, of which the kernel takes almost half to save what AVX-512 has as registers. A page
//! has to do, unoptimised as well. Whoever gets [`REPORTER`] owns it and never gives it back. System calls: `gettid`,
//! `clock_gettime`, `write`, `sigaction`, `rt_tgsigqueueinfo`, `nanosleep`, `_exit`; and `abort`, where a core dump
//! was asked for. All are allowed there.
//!
//! # A fault in the handler
//! The kernel kills a process that faults while the signal is blocked. Where it is not (SA_NODEFER; a bus error in
//! the handler of the other signal) the thread finds itself in [`REPORTER`], restores the default action,
//! and dies of it.
//!
//! # Safety
//! The handler and its order of steps; two statics that it shares with [`install`]. Memory is read that the kernel
//! gives to handlers, as its documentation says.
#![allow(unsafe_code)]

mod line;

use core::ffi::{c_int, c_void};
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr;
use std::cell::UnsafeCell;

pub use line::Line;

use super::error::last_errno;
use super::thread;
use crate::addr::Addr;
use crate::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicUsize, Ordering};

/// The code that the process ends with after a report; no usual program or shell ends with 86.
pub const EXIT_CODE: c_int = 86;

/// What becomes of the process after a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum AfterReport {
    /// It ends with [`EXIT_CODE`], at once: nothing is flushed, no destructor runs.
    #[default]
    Exit = 0,
    /// It is aborted, so that the system may keep an image of it (a core dump).
    CoreDump = 1,
}

/// The system has refused to install the handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InstallError {
    errno: i32,
}

impl InstallError {
    /// The system's error number (`errno`).
    pub const fn errno(self) -> i32 {
        self.errno
    }
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = self.errno;
        write!(f, "the operating system did not install a handler for faults (errno {errno})")
    }
}

impl core::error::Error for InstallError {}

/// What the thread was doing at the address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// It was reading.
    Read,
    /// It was writing.
    Write,
    /// The processor does not say, or this program does not know how to ask it.
    Unknown,
}

impl Access {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Access::Read => "read",
            Access::Write => "write",
            Access::Unknown => "access",
        }
    }
}

/// A fault, as the kernel describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The byte that could not be accessed.
    pub addr: Addr,
    /// How it was to be accessed.
    pub access: Access,
    /// The system's number of the thread.
    pub thread: i32,
}

/// Knows which faults are ours. All of it runs in a signal handler, on any thread at any moment.
pub trait Watch: 'static {
    /// What there is to tell of a fault.
    type Found;

    /// Whether the address is ours. What is returned should be small: it is on the stack until the end.
    fn find(addr: Addr) -> Option<Self::Found>;

    /// Tells it, in one line.
    fn tell(found: &Self::Found, fault: &Fault, line: &mut dyn fmt::Write) -> fmt::Result;
}

/// What was installed for a signal before; fields of `sigaction`.
struct Previous {
    action: AtomicUsize,
    flags: AtomicI32,
}

impl Previous {
    const fn new() -> Previous {
        Previous { action: AtomicUsize::new(libc::SIG_DFL), flags: AtomicI32::new(0) }
    }

    /// The one of the two signals' that `signal` is.
    fn of(signal: c_int) -> &'static Previous {
        if signal == libc::SIGBUS { &BUS } else { &SEGMENT }
    }
}

static SEGMENT: Previous = Previous::new();
static BUS: Previous = Previous::new();

/// Whether somebody is installing the handler, or has; and whether it is there.
static IS_BEGUN: AtomicBool = AtomicBool::new(false);
static IS_INSTALLED: AtomicBool = AtomicBool::new(false);

/// An [`AfterReport`].
static AFTER: AtomicU8 = AtomicU8::new(0);

/// The thread that reports; 0: nobody has anything to report.
static REPORTER: AtomicI32 = AtomicI32::new(0);

/// The text of the report.
struct Text(UnsafeCell<Line>);

// SAFETY: only the one thread that has entered itself in `REPORTER` touches it.
unsafe impl Sync for Text {}

static TEXT: Text = Text(UnsafeCell::new(Line::new()));

/// How often a thread looks whether another one that reports has ended the process, and for how long it sleeps.
const LOOKS: u32 = 200;
const LOOK_NANOS: libc::c_long = 10_000_000;

/// Whether [`install`] has done its work: a load.
pub fn is_installed() -> bool {
    IS_INSTALLED.load(Ordering::Acquire)
}

/// Installs the handler for the life of the process. When it is there, or another thread is at it, only `after` is
/// noted.
///
/// # Errors
/// When the system refuses; nothing has changed.
pub fn install<W: Watch>(after: AfterReport) -> Result<(), InstallError> {
    AFTER.store(after as u8, Ordering::Relaxed);
    if IS_BEGUN.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let result = take::<W>(libc::SIGSEGV).and_then(|before| {
        take::<W>(libc::SIGBUS).inspect_err(|_| {
            // The system has just refused, so it may do so again. Then the handler stays, and passes on.
            let _ = exchange(libc::SIGSEGV, Some(&before));
        })
    });
    match result {
        Ok(_) => IS_INSTALLED.store(true, Ordering::Release),
        Err(_) => IS_BEGUN.store(false, Ordering::Relaxed),
    }
    result.map(|_| ()).map_err(|errno| InstallError { errno })
}

/// Makes the handler that of one signal, and returns what was there before.
///
/// That has to be known when the first signal comes, so it is asked for and noted first. If another thread
/// installs something in between, that is what is noted, and the handler is installed anew for its flags.
fn take<W: Watch>(signal: c_int) -> Result<libc::sigaction, i32> {
    let ours = handle::<W> as *const () as usize;
    let mut before = exchange(signal, None)?;
    loop {
        if before.sa_sigaction == ours {
            // Left from an attempt that failed half way, with what was before it. It must not be passed on to itself.
            return Ok(before);
        }
        let previous = Previous::of(signal);
        previous.flags.store(before.sa_flags, Ordering::Relaxed);
        // `Release`: its partner is the handler's load, which may be on another thread.
        previous.action.store(before.sa_sigaction, Ordering::Release);
        let has_function = !matches!(before.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
        let kept = libc::SA_ONSTACK | libc::SA_NODEFER | libc::SA_RESTART;
        let mut action = before;
        action.sa_sigaction = ours;
        action.sa_flags = libc::SA_SIGINFO;
        action.sa_flags |= if has_function { before.sa_flags & kept } else { libc::SA_ONSTACK };
        let found = exchange(signal, Some(&action))?;
        if found.sa_sigaction == before.sa_sigaction {
            return Ok(before);
        }
        before = found;
    }
}

/// An action without function, mask or flags.
fn empty_action() -> libc::sigaction {
    // SAFETY: zeros are valid in all fields, and mean the default action.
    unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() }
}

/// Sets the action of a signal, if there is a new one, and returns the one before.
fn exchange(signal: c_int, new: Option<&libc::sigaction>) -> Result<libc::sigaction, i32> {
    let mut old = empty_action();
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `new` is null or an action whose function is a handler; the old one has room in a local.
    if unsafe { libc::sigaction(signal, new, &raw mut old) } != 0 {
        return Err(last_errno());
    }
    Ok(old)
}

/// The handler.
extern "C" fn handle<W: Watch>(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the C library's address of this thread's `errno`, which is valid for the thread's life.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; nobody else writes to it.
    let saved = unsafe { errno.read() };
    // SAFETY: the kernel passes a description, as it was installed with SA_SIGINFO.
    let description = unsafe { &*info };
    let code = description.si_code;
    if has_address(code) {
        // SAFETY: the code says that the kernel has filled the address in.
        let addr = Addr::new(unsafe { description.si_addr() } as usize);
        if let Some(found) = W::find(addr) {
            // SAFETY: the kernel passes the state of the thread, as above.
            let access = unsafe { access_of(context) };
            let fault = Fault { addr, access, thread: thread::current_id() };
            if report::<W>(&found, &fault) {
                return;
            }
        }
    }
    pass_on(signal, code, info, context);
    // SAFETY: as above.
    unsafe { errno.write(saved) };
}

/// Whether a signal is a fault of which the kernel names the address. Codes of zero and below are those of
/// signals that somebody has sent; with `SI_KERNEL`, the processor does not tell the address.
fn has_address(code: c_int) -> bool {
    code > 0 && code != libc::SI_KERNEL
}

/// Writes the report and ends the process. Returns, with `true`, when the thread was reporting already: the
/// default action is restored then.
fn report<W: Watch>(found: &W::Found, fault: &Fault) -> bool {
    let claim = REPORTER.compare_exchange(0, fault.thread, Ordering::Relaxed, Ordering::Relaxed);
    match claim {
        Ok(_) => {
            // SAFETY: this thread is the one in `REPORTER`, where no other one gets any more; and it has not been
            // here before, or its number would have been there.
            let line = unsafe { &mut *TEXT.0.get() };
            // A text that is too long is cut; else it cannot fail.
            let _ = W::tell(found, fault, line);
            line.end();
            write_all(line.bytes());
            end()
        }
        Err(reporter) if reporter == fault.thread => {
            for signal in [libc::SIGSEGV, libc::SIGBUS] {
                let _ = exchange(signal, Some(&empty_action()));
            }
            true
        }
        Err(_) => {
            for _ in 0..LOOKS {
                let time = libc::timespec { tv_sec: 0, tv_nsec: LOOK_NANOS };
                // SAFETY: reads a local. If it ends early, so be it.
                unsafe { libc::nanosleep(&raw const time, ptr::null_mut()) };
            }
            // In a forked child, the thread that was reporting is not there.
            end()
        }
    }
}

/// Writes to standard error: one call, unless the system takes only a part.
fn write_all(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the bytes are there for the whole call, which reads them.
        let written =
            unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(written) {
            Ok(0) => return,
            Ok(written) => bytes = &bytes[written.min(bytes.len())..],
            Err(_) if last_errno() == libc::EINTR => {}
            Err(_) => return,
        }
    }
}

/// Ends the process as was asked for.
fn end() -> ! {
    if AFTER.load(Ordering::Relaxed) == AfterReport::CoreDump as u8 {
        // SAFETY: may be called in a handler.
        unsafe { libc::abort() }
    }
    // SAFETY: as above.
    unsafe { libc::_exit(EXIT_CODE) }
}

/// Does what would have been done without us.
fn pass_on(signal: c_int, code: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let previous = Previous::of(signal);
    // Partner: the store in `take`.
    let action = previous.action.load(Ordering::Acquire);
    let flags = previous.flags.load(Ordering::Relaxed);
    // A fault that the instruction repeats when the handler returns. What was sent is not, nor is the news that
    // some memory has failed which nobody is using at the moment.
    let repeats = code > 0 && !(signal == libc::SIGBUS && code == BUS_MCEERR_AO);
    match action {
        libc::SIG_IGN if !repeats => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            if exchange(signal, Some(&empty_action())).is_err() {
                // SAFETY: may be called in a handler. Nothing else would end the process.
                unsafe { libc::abort() }
            }
            if !repeats {
                send_again(signal, info);
            }
        }
        function => {
            if flags & libc::SA_RESETHAND != 0 {
                previous.action.store(libc::SIG_DFL, Ordering::Release);
            }
            if flags & libc::SA_SIGINFO != 0 {
                // SAFETY: somebody has installed a handler with SA_SIGINFO at this address, which is such a
                // function. It is called with what the kernel has passed.
                let function = unsafe {
                    core::mem::transmute::<
                        usize,
                        extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void),
                    >(function)
                };
                function(signal, info, context);
            } else {
                // SAFETY: as above, without SA_SIGINFO.
                let function =
                    unsafe { core::mem::transmute::<usize, extern "C" fn(c_int)>(function) };
                function(signal);
            }
        }
    }
}

/// The code of a bus error about memory that has failed and that nobody uses at the moment (`sigaction(2)`).
const BUS_MCEERR_AO: c_int = 5;

/// Sends a signal to this thread with the description that it came with. It arrives when the handler has returned.
fn send_again(signal: c_int, info: *mut libc::siginfo_t) {
    // SAFETY: takes nothing, and cannot fail.
    let process = unsafe { libc::getpid() };
    let thread = thread::current_id();
    // SAFETY: the kernel reads the description, which it has made.
    let sent = unsafe {
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, signal, info.cast_const())
    };
    if sent != 0 {
        // SAFETY: no memory is involved. Without the description, then.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
    }
}

/// Whether the fault was a read or a write.
///
/// # Safety
/// `context` is what the kernel has passed to a handler for a fault.
#[cfg(target_arch = "x86_64")]
unsafe fn access_of(context: *mut c_void) -> Access {
    /// The bit in the processor's word about a page fault that says so.
    const WRITE: i64 = 1 << 1;
    // SAFETY: the caller promises it.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    let error = context.uc_mcontext.gregs[libc::REG_ERR as usize];
    if error & WRITE != 0 { Access::Write } else { Access::Read }
}

/// Whether the fault was a read or a write: not known on this processor.
///
/// # Safety
/// None is needed.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn access_of(_: *mut c_void) -> Access {
    Access::Unknown
}
