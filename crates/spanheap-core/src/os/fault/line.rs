//! A line of text of bounded length, for where nothing may be allocated.

use core::fmt;

/// Room for the text of a line, its end included. The longest that is written here names two files.
const ROOM: usize = 2048;

/// A line. What is too long is cut, at the end of a character, and ends in three dots.
pub struct Line {
    bytes: [u8; ROOM],
    len: usize,
    is_cut: bool,
}

/// What a line that was cut ends with.
const DOTS: &str = "...";

impl Line {
    /// An empty line.
    pub const fn new() -> Line {
        Line { bytes: [0; ROOM], len: 0, is_cut: false }
    }

    /// What was written so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Ends it.
    pub fn end(&mut self) {
        let last = if self.is_cut { "...\n" } else { "\n" };
        self.bytes[self.len..self.len + last.len()].copy_from_slice(last.as_bytes());
        self.len += last.len();
    }
}

impl Default for Line {
    fn default() -> Line {
        Line::new()
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.is_cut {
            return Err(fmt::Error);
        }
        // There is always room for the end.
        let room = ROOM - DOTS.len() - 1 - self.len;
        let mut fitting = text.len().min(room);
        while !text.is_char_boundary(fitting) {
            fitting -= 1;
        }
        self.bytes[self.len..self.len + fitting].copy_from_slice(&text.as_bytes()[..fitting]);
        self.len += fitting;
        self.is_cut = fitting < text.len();
        if self.is_cut { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;

    fn text(line: &mut Line) -> String {
        line.end();
        String::from_utf8(line.bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_line_holds_what_was_written() {
        let mut line = Line::new();
        write!(line, "ends of {:#x}", 0x1f).unwrap();
        assert_eq!(text(&mut line), "ends of 0x1f\n");
        assert_eq!(text(&mut Line::new()), "\n");
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        for before in 0..4 {
            let mut line = Line::new();
            line.write_str(&"x".repeat(before)).unwrap();
            assert!(line.write_str(&"é".repeat(ROOM)).is_err());
            assert!(line.write_str("more").is_err());
            let text = text(&mut line);
            assert!(text.ends_with("é...\n") && !text.contains("more"), "{text}");
            assert!(text.len() <= ROOM && text.len() > ROOM - 3, "{}", text.len());
        }
    }

    #[test]
    fn a_line_of_exactly_its_room_is_whole() {
        let mut line = Line::new();
        let whole = "x".repeat(ROOM - DOTS.len() - 1);
        line.write_str(&whole).unwrap();
        assert!(line.write_str("y").is_err());
        let mut other = Line::new();
        other.write_str(&whole).unwrap();
        assert_eq!(text(&mut other), whole + "\n");
    }
}
