//! A sandbox that refuses chosen system calls: a small seccomp filter, written by hand.
//!
//! The filter holds for the calling thread and the threads that it starts. It cannot be taken away again,
//! only added to, so it belongs into a child process.
//!
//! # Safety
//! Hands a filter program to the kernel, which checks it.

use libc::{c_long, sock_filter};

/// What is refused.
#[derive(Clone, Copy)]
pub struct Rule {
    call: c_long,
    argument: Option<Condition>,
    errno: i32,
}

#[derive(Clone, Copy)]
enum Condition {
    Equals(u32, u32),
    HasBits(u32, u32),
    AtLeast(u32, u32),
}

/// Refuses a call whatever its arguments are.
pub fn refuse(call: c_long, errno: i32) -> Rule {
    Rule { call, argument: None, errno }
}

impl Rule {
    /// Only when an argument (counted from 0) has this value in its lower half.
    pub fn when_equal(mut self, argument: u32, value: i32) -> Rule {
        self.argument = Some(Condition::Equals(argument, value as u32));
        self
    }

    /// Only when an argument has one of these bits.
    pub fn when_bits(mut self, argument: u32, bits: i32) -> Rule {
        self.argument = Some(Condition::HasBits(argument, bits as u32));
        self
    }

    /// Only when an argument is at least so large.
    pub fn when_at_least(mut self, argument: u32, value: u32) -> Rule {
        self.argument = Some(Condition::AtLeast(argument, value));
        self
    }

    fn compile(self, program: &mut Vec<sock_filter>) {
        let low = |argument| 16 + 8 * argument;
        let high = |argument| 20 + 8 * argument;
        match self.argument {
            None => self.compile_test(program, None),
            Some(Condition::Equals(n, value)) => {
                self.compile_test(program, Some((low(n), libc::BPF_JEQ, value)));
            }
            Some(Condition::HasBits(n, bits)) => {
                self.compile_test(program, Some((low(n), libc::BPF_JSET, bits)));
            }
            Some(Condition::AtLeast(n, value)) => {
                self.compile_test(program, Some((high(n), libc::BPF_JGE, 1)));
                self.compile_test(program, Some((low(n), libc::BPF_JGE, value)));
            }
        }
    }

    /// "If this call, and if the word at `offset` compares, return the error."
    fn compile_test(self, program: &mut Vec<sock_filter>, word: Option<(u32, u32, u32)>) {
        let skip = if word.is_some() { 3 } else { 1 };
        program.push(load(0));
        program.push(jump(libc::BPF_JEQ, self.call as u32, 0, skip));
        if let Some((offset, comparison, value)) = word {
            program.push(load(offset));
            program.push(jump(comparison, value, 0, 1));
        }
        program.push(answer(libc::SECCOMP_RET_ERRNO | self.errno as u32));
    }
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn jump(comparison: u32, value: u32, yes: u8, no: u8) -> sock_filter {
    instruction(libc::BPF_JMP | comparison | libc::BPF_K, yes, no, value)
}

fn answer(value: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, value)
}

/// Puts the calling thread, and the threads that it starts, into a sandbox with these rules. `false`,
/// and a line of text, when the machine does not allow it.
#[must_use]
pub fn enter(rules: &[Rule]) -> bool {
    let mut program = Vec::new();
    for rule in rules {
        rule.compile(&mut program);
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    let len = u16::try_from(program.len()).unwrap();
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: no pointers are passed.
    let status = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(status, 0);
    // SAFETY: the program lives during the call, which copies it.
    let status =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if status != 0 {
        println!("no sandbox here: {}", std::io::Error::last_os_error());
    }
    status == 0
}
