//! What tests need to put a process into trouble, and to ask the kernel what it thinks of memory.
//!
//! * `child`: a test body in a process of its own, which may be limited, sandboxed or killed.
//! * `sandbox`: system calls that the kernel refuses from now on.
//! * `mappings`: the process's mappings, and how to use them up.
//!
//! # Safety
//! [`Probe`] passes addresses to the kernel, which checks them.
#![allow(dead_code, reason = "each test program uses its part")]

pub mod child;
pub mod mappings;
pub mod sandbox;

use spanheap_core::addr::Addr;

/// A way to look at memory that may not be readable, without dying of it.
pub struct Probe {
    ends: [libc::c_int; 2],
}

impl Probe {
    pub fn new() -> Probe {
        let mut ends = [0; 2];
        // SAFETY: the array has room for the two descriptors.
        let status = unsafe { libc::pipe(ends.as_mut_ptr()) };
        assert_eq!(status, 0);
        Probe { ends }
    }

    /// The byte at an address, or `None` when a read of it would fault.
    pub fn read(&self, addr: Addr) -> Option<u8> {
        // SAFETY: the kernel reads from the address, and answers EFAULT where it cannot.
        let written = unsafe { libc::write(self.ends[1], addr.as_ptr(), 1) };
        if written < 0 {
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EFAULT));
            return None;
        }
        let mut byte = 0u8;
        // SAFETY: one byte is in the pipe, and there is room for it.
        let read = unsafe { libc::read(self.ends[0], (&raw mut byte).cast(), 1) };
        assert_eq!(read, 1);
        Some(byte)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        for end in self.ends {
            // SAFETY: the descriptors are this value's own.
            unsafe { libc::close(end) };
        }
    }
}
