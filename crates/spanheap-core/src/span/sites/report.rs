//! From an address that has faulted to a line of text.
//!
//! All of it runs in a signal handler: it allocates nothing, takes no lock, and calls nobody's code but that of
//! `core::fmt`.

use super::memory;
use super::records::{Freed, Grave, Record};
use crate::addr::Addr;
use crate::os::clock;
use crate::os::fault::{Fault, Watch};
use crate::span::map;
use core::fmt;

/// What knows which faults are uses of freed arenas.
pub(super) struct Reporter;

impl Watch for Reporter {
    type Found = &'static Record;

    /// A program that lives on faults asks this often, so addresses outside of all heaps cost one load. For the others,
    /// all records are looked at: at most a few milliseconds, and after that the process ends.
    fn find(addr: Addr) -> Option<&'static Record> {
        map::owner(addr)?;
        memory::find_record(|record| record.is_grave_of(addr))
    }

    fn tell(found: &&'static Record, fault: &Fault, line: &mut dyn fmt::Write) -> fmt::Result {
        match found.read(fault.addr) {
            Some(grave) => {
                let ago = clock::monotonic_nanos().saturating_sub(grave.nanos);
                tell(&grave, fault, ago, line)
            }
            // The last pointer to the chunk was found to be gone just now.
            None => {
                write!(line, "spanheap: use after arena free")?;
                tell_access(fault, line)
            }
        }
    }
}

/// The text, `ago` nanoseconds after the arena was freed.
fn tell(found: &Grave, fault: &Fault, ago: u64, line: &mut dyn fmt::Write) -> fmt::Result {
    write!(line, "spanheap: use after arena free: arena #{}", found.arena)?;
    let name = found.name.text();
    if !name.is_empty() {
        write!(line, " {name:?}")?;
    }
    match found.freed {
        Freed::At(site) => write!(line, " freed at {site}")?,
        Freed::Dropped => write!(line, " freed by dropping its handle")?,
        Freed::Unreachable => write!(line, " freed because nothing led to it")?,
    }
    write!(line, " (thread {}, {} ago)", found.thread, Ago(ago))?;
    match found.object {
        Some(object) => {
            let (bytes, name) = (object.bytes.get(), object.name);
            match (name.is_empty(), object.is_slice) {
                (true, _) => write!(line, "; {bytes} bytes")?,
                (false, false) => write!(line, "; object {name} ({bytes} bytes)")?,
                (false, true) => write!(line, "; slice of {name} ({bytes} bytes)")?,
            }
            write!(line, " allocated at {}", object.site)?;
        }
        None if found.has_objects => write!(line, "; no object was noted there")?,
        None => {}
    }
    tell_access(fault, line)
}

/// What was done, and where.
fn tell_access(fault: &Fault, line: &mut dyn fmt::Write) -> fmt::Result {
    let (addr, access, thread) = (fault.addr.get(), fault.access.name(), fault.thread);
    write!(line, "; address {addr:#x}; {access} by thread {thread}")
}

/// A time in a unit that suits it, with one decimal.
struct Ago(u64);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..1_000 => return write!(f, "{} ns", self.0),
            1_000..1_000_000 => (1_000, "\u{b5}s"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (1_000_000_000, "s"),
        };
        let tenths = self.0 / (unit / 10);
        write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::super::objects::Object;
    use super::super::records::Name;
    use super::*;
    use crate::addr::Bytes;
    use crate::os::fault::Access;
    use core::panic::Location;

    fn text(grave: &Grave, access: Access, ago: u64) -> String {
        let mut line = String::new();
        let fault = Fault { addr: Addr::new(0xc0_0012_3458), access, thread: 9 };
        tell(grave, &fault, ago, &mut line).unwrap();
        line
    }

    fn grave(name: &str, freed: Freed) -> Grave {
        let (nanos, thread) = (0, 3);
        let name = Name::of(name);
        Grave { arena: 7, name, freed, nanos, thread, has_objects: false, object: None }
    }

    #[test]
    fn the_line_names_what_is_known() {
        let site = Location::caller();
        let mut found = grave("request", Freed::At(site));
        let end = "address 0xc000123458; read by thread 9";
        assert_eq!(
            text(&found, Access::Read, 4_250_000),
            format!(
                "spanheap: use after arena free: arena #7 \"request\" freed at {site} \
                 (thread 3, 4.2 ms ago); {end}"
            )
        );
        found.has_objects = true;
        let line = text(&found, Access::Write, 0);
        assert!(line.contains("0 ns ago); no object was noted there; address"), "{line}");
        assert!(line.ends_with("; write by thread 9"), "{line}");
        let (start, bytes) = (Addr::new(0xc0_0012_3440), Bytes::new(64));
        let object = Object { start, bytes, name: "Node", is_slice: false, site };
        found.object = Some(object);
        let line = text(&found, Access::Read, 1);
        assert!(line.contains(&format!("; object Node (64 bytes) allocated at {site}; {end}")));
        found.object = Some(Object { is_slice: true, ..object });
        let line = text(&found, Access::Unknown, 1);
        assert!(line.contains("; slice of Node (64 bytes) allocated at "), "{line}");
        assert!(line.ends_with("; access by thread 9"), "{line}");
        found.object = Some(Object { name: "", ..object });
        let line = text(&found, Access::Read, 1);
        assert!(line.contains(&format!(" ago); 64 bytes allocated at {site}; ")), "{line}");
    }

    #[test]
    fn an_arena_needs_neither_a_name_nor_a_place() {
        let line = text(&grave("", Freed::Dropped), Access::Read, 999);
        assert!(line.contains("arena #7 freed by dropping its handle (thread 3, 999 ns"), "{line}");
        let line = text(&grave("a\n\"b", Freed::Unreachable), Access::Read, 1_000);
        assert!(line.contains("#7 \"a\\n\\\"b\" freed because nothing led to it (thr"), "{line}");
    }

    #[test]
    fn times_have_units() {
        for (nanos, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.0 µs"),
            (999_999, "999.9 µs"),
            (4_250_000, "4.2 ms"),
            (61_000_000_000, "61.0 s"),
        ] {
            assert_eq!(Ago(nanos).to_string(), text);
        }
    }

    #[test]
    fn an_address_that_is_nobodys_is_not_ours() {
        let local = 0u8;
        for addr in [0, 8, &raw const local as usize, usize::MAX] {
            assert!(Reporter::find(Addr::new(addr)).is_none());
        }
    }
}
