//! [`MemoryLimit`]: a limit as one says it, and how many bytes that is here.

use crate::addr::{ADDRESS_BITS, Bytes};
use crate::os::Os;
use core::fmt;

/// The share of a control group's limit that [`MemoryLimit::Cgroup`] is, in percent. What is left is for stacks, for
/// the program's other memory, and for what the heap grows by while a cycle runs.
const CGROUP_PERCENT: u8 = 80;

/// The largest share of a control group's limit: beyond it, the kernel ends the process before a limit that may be
/// exceeded a little means anything.
const MOST_OF_CGROUP: u8 = 95;

/// The smallest limit: what an empty heap needs for itself, and a chunk of pages.
const SMALLEST: usize = 8 << 20;

/// A limit on the memory of a heap.
///
/// A number of bytes can be given for it: `HeapBuilder::memory_limit(512 << 20)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MemoryLimit {
    /// None.
    Off,
    /// So many bytes: 8 MiB at least. More than a process can have is no limit.
    Bytes(usize),
    /// A part of the machine's memory, in percent: 1 to 100.
    PercentOfMachine(u8),
    /// 80 % of what the control groups of the process allow (the lowest of their limits, in version 1 and 2), or of
    /// the machine's memory where that is less or there is no such limit. It is read when it is set, and not again.
    Cgroup,
    /// The same with another part, in percent: 1 to 95.
    PercentOfCgroup(u8),
}

impl From<usize> for MemoryLimit {
    fn from(bytes: usize) -> MemoryLimit {
        MemoryLimit::Bytes(bytes)
    }
}

/// Why a limit is not one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LimitError {
    /// It leaves no room for any object.
    TooSmall {
        /// The limit in bytes.
        limit: usize,
        /// The smallest that is accepted, in bytes.
        smallest: usize,
    },
    /// A share is 0, or is more than may be asked for.
    Percent {
        /// What was asked for.
        percent: u8,
        /// The most that is accepted.
        most: u8,
    },
    /// The system does not say how much memory there is.
    Unknown,
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            LimitError::TooSmall { limit, smallest } => write!(
                f,
                "a memory limit of {} leaves no room for objects: the smallest is {}",
                Bytes::new(limit),
                Bytes::new(smallest)
            ),
            LimitError::Percent { percent, most } => {
                write!(f, "a memory limit of {percent} percent: it is 1 to {most}")
            }
            LimitError::Unknown => {
                write!(
                    f,
                    "a part of the memory was asked for, and the system does not say what there is"
                )
            }
        }
    }
}

impl std::error::Error for LimitError {}

impl MemoryLimit {
    /// How many bytes that is on this system now; `None`: no limit.
    ///
    /// # Errors
    /// See [`LimitError`].
    pub fn resolve(self, os: &Os) -> Result<Option<Bytes>, LimitError> {
        let limit = match self {
            MemoryLimit::Off => return Ok(None),
            MemoryLimit::Bytes(bytes) if bytes >> ADDRESS_BITS > 0 => return Ok(None),
            MemoryLimit::Bytes(bytes) => Bytes::new(bytes),
            MemoryLimit::PercentOfMachine(percent) => part(os.machine_memory(), percent, 100)?,
            MemoryLimit::Cgroup => part(available(os), CGROUP_PERCENT, MOST_OF_CGROUP)?,
            MemoryLimit::PercentOfCgroup(percent) => part(available(os), percent, MOST_OF_CGROUP)?,
        };
        match limit.get() {
            limit @ 0..SMALLEST => Err(LimitError::TooSmall { limit, smallest: SMALLEST }),
            _ => Ok(Some(limit)),
        }
    }
}

/// What the process may have: the lower one of what its groups allow and what the machine has.
fn available(os: &Os) -> Option<Bytes> {
    [os.cgroup_limit(), os.machine_memory()].into_iter().flatten().min()
}

fn part(whole: Option<Bytes>, percent: u8, most: u8) -> Result<Bytes, LimitError> {
    if !(1..=most).contains(&percent) {
        return Err(LimitError::Percent { percent, most });
    }
    let whole = whole.ok_or(LimitError::Unknown)?.get() as u128;
    Ok(Bytes::new((whole * u128::from(percent) / 100) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::sim::{SimBuilder, SimOs};

    const GIB: usize = 1 << 30;

    fn machine() -> SimBuilder {
        SimOs::builder().file("/proc/meminfo", "MemTotal: 16777216 kB\n")
    }

    fn in_group(limit: &str) -> Os {
        let mount = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let sim = machine()
            .file("/proc/self/cgroup", "0::/job\n")
            .file("/proc/self/mountinfo", mount)
            .file("/sys/fs/cgroup/job/memory.max", limit);
        Os::simulated(sim.build())
    }

    fn bytes(limit: MemoryLimit, os: &Os) -> usize {
        limit.resolve(os).expect("a limit").expect("there is one").get()
    }

    #[test]
    fn bytes_are_bytes_and_too_few_are_refused() {
        let os = Os::simulated(SimOs::builder().build());
        assert_eq!(bytes(MemoryLimit::from(SMALLEST), &os), SMALLEST);
        for limit in [0, 1, SMALLEST - 1] {
            let refused = MemoryLimit::Bytes(limit).resolve(&os);
            assert_eq!(refused, Err(LimitError::TooSmall { limit, smallest: SMALLEST }));
        }
        assert_eq!(MemoryLimit::Bytes(usize::MAX).resolve(&os), Ok(None));
        assert_eq!(MemoryLimit::Bytes(1 << ADDRESS_BITS).resolve(&os), Ok(None));
        assert_eq!(MemoryLimit::Off.resolve(&os), Ok(None));
    }

    #[test]
    fn a_part_of_the_machine() {
        let os = Os::simulated(machine().build());
        assert_eq!(bytes(MemoryLimit::PercentOfMachine(25), &os), 4 * GIB);
        assert_eq!(bytes(MemoryLimit::PercentOfMachine(100), &os), 16 * GIB);
        for percent in [0, 101, u8::MAX] {
            let refused = MemoryLimit::PercentOfMachine(percent).resolve(&os);
            assert_eq!(refused, Err(LimitError::Percent { percent, most: 100 }));
        }
        let silent = Os::simulated(SimOs::builder().build());
        for limit in [MemoryLimit::PercentOfMachine(50), MemoryLimit::Cgroup] {
            assert_eq!(limit.resolve(&silent), Err(LimitError::Unknown));
        }
    }

    #[test]
    fn fault_15_a_part_of_what_the_groups_allow() {
        let os = in_group("1073741824\n");
        assert_eq!(bytes(MemoryLimit::Cgroup, &os), GIB / 100 * 80 + GIB % 100 * 80 / 100);
        assert_eq!(bytes(MemoryLimit::PercentOfCgroup(50), &os), GIB / 2);
        for percent in [0, 96, u8::MAX] {
            let refused = MemoryLimit::PercentOfCgroup(percent).resolve(&os);
            assert_eq!(refused, Err(LimitError::Percent { percent, most: 95 }));
        }
        // Without a limit, or with one that the machine cannot meet, it is the machine's memory.
        for text in ["max\n", "1099511627776\n"] {
            assert_eq!(bytes(MemoryLimit::PercentOfCgroup(50), &in_group(text)), 8 * GIB);
        }
        let tiny = MemoryLimit::Cgroup.resolve(&in_group("1048576\n"));
        assert!(matches!(tiny, Err(LimitError::TooSmall { .. })), "{tiny:?}");
    }

    #[test]
    fn this_machine_says_how_much_memory_it_has() {
        let os = Os::native();
        let machine = os.machine_memory().expect("Linux says it");
        assert!(bytes(MemoryLimit::PercentOfMachine(50), &os) <= machine.get() / 2);
        assert!(bytes(MemoryLimit::Cgroup, &os) <= machine.get() / 100 * 80 + 100);
    }
}
