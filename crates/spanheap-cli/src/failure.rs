//! [`Failure`]: why the program cannot go on, in one line for a person.
//!
//! There is one type with a text, and one thing that a caller may act on: whether the heap had no room,
//! since that can be another matter after a collection. What comes from outside (a file name, a parser's
//! message) may contain line breaks; they are made visible, because scripts rely on one error being one
//! line.

use std::any::Any;
use std::fmt;

use spanheap::{BuildError, OutOfMemory};

/// One line that says what went wrong, and where.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    text: String,
    exhausted: bool,
}

/// What everything in this program returns.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with this text.
    pub(crate) fn new(text: impl Into<String>) -> Failure {
        Failure { text: text.into(), exhausted: false }
    }

    /// The heap refused an allocation that was made for `what`.
    pub(crate) fn exhausted(what: &str, error: &OutOfMemory) -> Failure {
        Failure { text: format!("{what}: {error}"), exhausted: true }
    }

    /// Whether the heap had no room: after a collection it may have.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// What a thread left behind that panicked: for want of memory, or by a defect. The user gets a line
    /// and an exit code all the same.
    pub(crate) fn from_panic(payload: &(dyn Any + Send)) -> Failure {
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Failure::new(format!("stopped: {text}"))
    }
}

/// Whatever it was that the heap should have grown for.
impl From<OutOfMemory> for Failure {
    fn from(error: OutOfMemory) -> Failure {
        Failure::exhausted("the heap cannot grow", &error)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Failure {
        Failure::new(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.text.chars() {
            match c {
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                c => fmt::Write::write_char(f, c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Failure;

    #[test]
    fn a_failure_is_one_line() {
        assert_eq!(Failure::new("a\nb\r\nc").to_string(), "a\\nb\\r\\nc");
    }

    #[test]
    fn a_panic_keeps_its_words() {
        let payload = std::panic::catch_unwind(|| {
            std::panic::resume_unwind(Box::new(String::from("slot 7 of 5")));
        })
        .expect_err("the closure unwinds");
        let text = Failure::from_panic(payload.as_ref()).to_string();
        assert_eq!(text, "stopped: slot 7 of 5");
    }
}
