//! Threads as the system knows them: a number that outlives thread-locals, and a name that others can read.
//!
//! # Safety
//! One system call without arguments.
#![allow(unsafe_code)]

/// The system's number for the calling thread.
pub fn current_id() -> i32 {
    // SAFETY: the call takes nothing, writes nothing and does not fail.
    let id = unsafe { libc::syscall(libc::SYS_gettid) };
    i32::try_from(id).unwrap_or(0)
}

/// The name of a thread of this process, as far as the system keeps it: the first 15 bytes. `None` when there
/// is no such thread any more, or the system does not say.
pub fn name_of(id: i32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/self/task/{id}/comm")).ok()?;
    Some(name.trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_known_by_number_and_name() {
        let named = std::thread::Builder::new().name("somebody".into());
        let seen = named.spawn(|| (current_id(), name_of(current_id()))).unwrap().join().unwrap();
        assert_ne!(seen.0, current_id());
        assert_eq!(seen.1.as_deref(), Some("somebody"));
        assert_eq!(name_of(i32::MAX), None);
    }
}
