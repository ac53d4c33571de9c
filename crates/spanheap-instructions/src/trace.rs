//! Stepping a child process from one breakpoint to the next.
//!
//! The child asks to be traced, stops at a breakpoint instruction, and is stepped from there. A step ends in a signal,
//! SIGTRAP; so does a breakpoint, and the system says which of the two it was. Threads that the child makes (a heap has
//! some) are not traced.
//!
//! # Safety
//! - P1. The program has one thread when it forks, so the child may do whatever it likes.
//! - P2. Requests to `ptrace` name a child of this process that is stopped, and get no pointers but to a
//!   place for what it was stopped by.
#![allow(unsafe_code)]

use std::fmt;
use std::io;

/// Why nothing was counted.
pub(crate) enum Failure {
    /// The system does not let a process trace its child.
    NotPermitted(String),
    /// Something else.
    Other(String),
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::NotPermitted(why) | Failure::Other(why)) = self;
        f.write_str(why)
    }
}

/// What the child exits with if it cannot be traced.
const REFUSED: libc::c_int = 78;

/// The most steps of a stretch: a child that runs away is noticed.
const MOST_STEPS: u64 = 1_000_000;

/// Where the parent counts from and to.
#[inline(always)]
pub(crate) fn breakpoint() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: stops the child, whose parent waits for that.
    unsafe {
        core::arch::asm!("int3");
    }
}

/// Runs `run` in a child, which calls [`breakpoint`] three times: the steps of the two stretches between.
pub(crate) fn count(run: fn()) -> Result<(u64, u64), Failure> {
    if !cfg!(target_arch = "x86_64") {
        return Err(Failure::NotPermitted("only x86-64 is stepped".into()));
    }
    // SAFETY: P1.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(other("a child cannot be made")),
        0 => {
            // SAFETY: P2: asks to be traced by the parent.
            if unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } != 0 {
                // SAFETY: ends the child.
                unsafe { libc::_exit(REFUSED) };
            }
            run();
            // SAFETY: ends the child; what its threads do is of no interest.
            unsafe { libc::_exit(0) }
        }
        child => {
            let counted = Child(child).stretches();
            // SAFETY: the child is stopped, or gone already.
            unsafe { libc::kill(child, libc::SIGKILL) };
            // SAFETY: waits for a child of this process.
            unsafe { libc::waitpid(child, core::ptr::null_mut(), 0) };
            counted
        }
    }
}

fn other(what: &str) -> Failure {
    Failure::Other(format!("{what}: {}", io::Error::last_os_error()))
}

struct Child(libc::pid_t);

impl Child {
    fn stretches(&self) -> Result<(u64, u64), Failure> {
        if !self.wait()? {
            return Err(Failure::Other("the child stopped before its first breakpoint".into()));
        }
        Ok((self.step_to_breakpoint()?, self.step_to_breakpoint()?))
    }

    /// Steps to the next breakpoint: how many steps that were, the one over it included.
    fn step_to_breakpoint(&self) -> Result<u64, Failure> {
        for steps in 1..=MOST_STEPS {
            // SAFETY: P2.
            if unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, self.0, 0, 0) } != 0 {
                return Err(self.refusal());
            }
            if self.wait()? {
                return Ok(steps);
            }
        }
        Err(Failure::Other(format!("the child has made {MOST_STEPS} steps and does not stop")))
    }

    /// Waits for the child to stop: whether at a breakpoint, or after a step.
    fn wait(&self) -> Result<bool, Failure> {
        let mut status = 0;
        // SAFETY: waits for a child of this process.
        if unsafe { libc::waitpid(self.0, &raw mut status, 0) } != self.0 {
            return Err(other("the child is gone"));
        }
        if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == REFUSED {
            return Err(Failure::NotPermitted("a child may not be traced here".into()));
        }
        if !libc::WIFSTOPPED(status) || libc::WSTOPSIG(status) != libc::SIGTRAP {
            return Err(Failure::Other(format!("the child has failed: status {status:#x}")));
        }
        // SAFETY: zeros are a valid value of plain numbers.
        let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
        // SAFETY: P2; there is room for the answer.
        if unsafe { libc::ptrace(libc::PTRACE_GETSIGINFO, self.0, 0, &raw mut info) } != 0 {
            return Err(self.refusal());
        }
        Ok(info.si_code == libc::SI_KERNEL)
    }

    fn refusal(&self) -> Failure {
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EPERM) => Failure::NotPermitted(format!("ptrace: {error}")),
            _ => Failure::Other(format!("ptrace: {error}")),
        }
    }
}
