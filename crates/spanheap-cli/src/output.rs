//! Writing to the two standard streams, without panicking.
//!
//! `println!` panics when the reader of a pipe has gone (`spanheap demo | head -1`). Here that is no
//! error at all: nobody is left to read the rest. Any other failure to write the results (a full
//! disk) is an error. Standard error gets diagnostics only, and failing to write those is ignored,
//! since there is no better place left to say it.

use std::io::{self, ErrorKind, Write};

use serde::Serialize;

use crate::failure::{Failure, Result};

/// Writes `text` and a line end to standard output.
pub(crate) fn line(text: &str) -> Result<()> {
    match write_line(&mut io::stdout().lock(), text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// A result as one line of JSON.
pub(crate) fn json(result: &impl Serialize) -> Result<String> {
    serde_json::to_string(result)
        .map_err(|error| Failure::new(format!("the result cannot be written: {error}")))
}

/// Writes `text` and a line end to standard error.
pub(crate) fn note(text: &str) {
    let _ = write_line(&mut io::stderr().lock(), text);
}

/// Replaces the last line of a terminal on standard error with `text`.
pub(crate) fn redraw(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
}

/// One `write` for the whole line, so that lines of several processes do not mix.
fn write_line(stream: &mut dyn Write, text: &str) -> io::Result<()> {
    stream.write_all(format!("{text}\n").as_bytes())?;
    stream.flush()
}

/// A number of bytes for a person: `12.3 MB`, decimal units.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A duration for a person: three digits or so, and a unit.
pub(crate) fn duration(time: std::time::Duration) -> String {
    let nanoseconds = time.as_nanos() as f64;
    match nanoseconds {
        n if n < 1e3 => format!("{n:.0} ns"),
        n if n < 1e6 => format!("{:.1} us", n / 1e3),
        n if n < 1e9 => format!("{:.1} ms", n / 1e6),
        n => format!("{:.2} s", n / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{bytes, duration};

    #[test]
    fn units_change_where_the_digits_would_overflow() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "1.0 kB");
        assert_eq!(bytes(999_949), "999.9 kB");
        assert_eq!(bytes(999_950), "1.0 MB");
        assert_eq!(bytes(u64::MAX), "18.4 EB");
        assert_eq!(duration(Duration::from_nanos(7)), "7 ns");
        assert_eq!(duration(Duration::from_micros(1500)), "1.5 ms");
        assert_eq!(duration(Duration::from_secs(90)), "90.00 s");
    }
}
