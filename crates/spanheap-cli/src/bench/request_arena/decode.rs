//! One decoder of JSON for all places: values go to their memory as soon as they are complete.
//!
//! It is written for this benchmark so that what is measured is memory, and not the way there: no tree in
//! between, no error type with a text, strings without escapes copied once, eight bytes looked at in one step. The
//! grammar is RFC 8259's, with no more than [`MAX_DEPTH`] containers in each other. The program for Go has the same
//! decoder, step for step.
//!
//! ```text
//! value:      scalars and strings are made at once;
//! container:  its parts are pushed on a list that all containers share; at its end they are moved from there
//! ```

use super::document::{Pair, Place, Scratch, Text, Value};

/// Containers in each other.
const MAX_DEPTH: u32 = 128;

/// The text is no JSON, which is first seen at this byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) usize);

/// Decodes `text`, all of it, into `place`.
pub(super) fn decode<P: Place>(
    text: &str,
    place: &mut P,
    scratch: &mut Scratch<P::Kind>,
) -> Result<Value<P::Kind>, Malformed> {
    let mut decoder = Decoder { text, at: 0, depth: 0, place, scratch };
    decoder.skip_blanks();
    let value = decoder.value()?;
    decoder.skip_blanks();
    if decoder.at < text.len() { Err(Malformed(decoder.at)) } else { Ok(value) }
}

struct Decoder<'a, P: Place> {
    text: &'a str,
    /// The next byte.
    at: usize,
    depth: u32,
    place: &'a mut P,
    scratch: &'a mut Scratch<P::Kind>,
}

impl<P: Place> Decoder<'_, P> {
    /// The next byte, or one that stands nowhere in JSON.
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    fn fail<T>(&self) -> Result<T, Malformed> {
        Err(Malformed(self.at))
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// Takes the byte that has to come next.
    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.peek() != byte {
            return self.fail();
        }
        self.at += 1;
        Ok(())
    }

    fn literal(&mut self, name: &str, value: Value<P::Kind>) -> Result<Value<P::Kind>, Malformed> {
        if !self.text.as_bytes()[self.at..].starts_with(name.as_bytes()) {
            return self.fail();
        }
        self.at += name.len();
        Ok(value)
    }

    /// A value, which begins at the next byte.
    fn value(&mut self) -> Result<Value<P::Kind>, Malformed> {
        match self.peek() {
            b'"' => self.string().map(Value::Text),
            b'{' => self.object(),
            b'[' => self.array(),
            b'-' | b'0'..=b'9' => self.number().map(Value::Number),
            b't' => self.literal("true", Value::Bool(true)),
            b'f' => self.literal("false", Value::Bool(false)),
            b'n' => self.literal("null", Value::Null),
            _ => self.fail(),
        }
    }

    /// Goes into a container: over its bracket, to its first part. Says whether it is empty.
    fn open(&mut self, close: u8) -> Result<bool, Malformed> {
        if self.depth == MAX_DEPTH {
            return self.fail();
        }
        self.depth += 1;
        self.at += 1;
        self.skip_blanks();
        Ok(self.ends(close))
    }

    /// Goes behind the bracket, if it is what comes next.
    fn ends(&mut self, close: u8) -> bool {
        let ends = self.peek() == close;
        if ends {
            self.at += 1;
            self.depth -= 1;
        }
        ends
    }

    /// Goes from one part of a container to the next. Says whether that was the last.
    fn next(&mut self, close: u8) -> Result<bool, Malformed> {
        self.skip_blanks();
        if self.ends(close) {
            return Ok(true);
        }
        self.expect(b',')?;
        self.skip_blanks();
        Ok(false)
    }

    fn array(&mut self) -> Result<Value<P::Kind>, Malformed> {
        let from = self.scratch.values.len();
        let mut ended = self.open(b']')?;
        while !ended {
            let value = self.value()?;
            self.scratch.values.push(value);
            ended = self.next(b']')?;
        }
        Ok(Value::Array(self.place.array(&mut self.scratch.values, from)))
    }

    fn object(&mut self) -> Result<Value<P::Kind>, Malformed> {
        let from = self.scratch.members.len();
        let mut ended = self.open(b'}')?;
        while !ended {
            let key = self.string()?;
            self.skip_blanks();
            self.expect(b':')?;
            self.skip_blanks();
            let value = self.value()?;
            self.scratch.members.push(Pair { key, value });
            ended = self.next(b'}')?;
        }
        Ok(Value::Object(self.place.object(&mut self.scratch.members, from)))
    }

    fn string(&mut self) -> Result<Text<P>, Malformed> {
        self.expect(b'"')?;
        let start = self.at;
        self.skip_plain();
        if self.peek() == b'"' {
            let plain = &self.text[start..self.at];
            self.at += 1;
            return Ok(self.place.text(plain));
        }
        self.escaped(start)
    }

    /// Goes to the next byte that cannot stand for itself in a string, or to the end of the text.
    fn skip_plain(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(Ok(word)) = bytes.get(self.at..self.at + 8).map(<[u8; 8]>::try_from) {
            let found = special(u64::from_le_bytes(word));
            if found != 0 {
                self.at += found.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
        while bytes.get(self.at).is_some_and(|&byte| byte >= b' ' && byte != b'"' && byte != b'\\')
        {
            self.at += 1;
        }
    }

    /// The rest of a string that began at `start`; up to the next byte there is nothing special.
    #[cold]
    fn escaped(&mut self, start: usize) -> Result<Text<P>, Malformed> {
        self.scratch.unescaped.clear();
        let mut plain = start;
        loop {
            let part = &self.text[plain..self.at];
            self.scratch.unescaped.push_str(part);
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(self.place.text(&self.scratch.unescaped));
                }
                b'\\' => {
                    let character = self.escape()?;
                    self.scratch.unescaped.push(character);
                }
                _ => return self.fail(),
            }
            plain = self.at;
            self.skip_plain();
        }
    }

    /// The character that an escape stands for.
    fn escape(&mut self) -> Result<char, Malformed> {
        self.at += 1;
        let character = match self.peek() {
            byte @ (b'"' | b'\\' | b'/') => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.code_point(),
            _ => return self.fail(),
        };
        self.at += 1;
        Ok(character)
    }

    /// What begins with the `u` of an escape: one number of 16 bits, or the two halves of a pair.
    fn code_point(&mut self) -> Result<char, Malformed> {
        let first = self.hexadecimal()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or(Malformed(self.at));
        }
        self.expect(b'\\')?;
        if self.peek() != b'u' {
            return self.fail();
        }
        let second = self.hexadecimal()?;
        if !(0xdc00..0xe000).contains(&second) {
            return self.fail();
        }
        let point = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        char::from_u32(point).ok_or(Malformed(self.at))
    }

    /// Four digits behind the `u`, which is the next byte.
    fn hexadecimal(&mut self) -> Result<u32, Malformed> {
        let mut number = 0;
        for _ in 0..4 {
            self.at += 1;
            let Some(digit) = char::from(self.peek()).to_digit(16) else { return self.fail() };
            number = number * 16 + digit;
        }
        self.at += 1;
        Ok(number)
    }

    /// A number. With up to fifteen digits and no exponent it is a quotient of two numbers that are exact, so
    /// that the division rounds once; any other goes the long way.
    fn number(&mut self) -> Result<f64, Malformed> {
        let start = self.at;
        let negative = self.peek() == b'-';
        self.at += usize::from(negative);
        let first = self.at;
        let mut mantissa = self.digits(0)?;
        if self.at - first > 1 && self.text.as_bytes()[first] == b'0' {
            return Err(Malformed(first + 1));
        }
        let mut places = 0;
        if self.peek() == b'.' {
            self.at += 1;
            let point = self.at;
            mantissa = self.digits(mantissa)?;
            places = self.at - point;
        }
        if matches!(self.peek(), b'e' | b'E') || self.at - first > 15 {
            return self.long_number(start);
        }
        let number = mantissa as f64 / POWERS_OF_TEN[places];
        Ok(if negative { -number } else { number })
    }

    /// Takes digits, at least one, behind those of `before`. Only the last nineteen count, so that nothing
    /// overflows.
    fn digits(&mut self, before: u64) -> Result<u64, Malformed> {
        if !self.peek().is_ascii_digit() {
            return self.fail();
        }
        let mut number = before;
        while self.peek().is_ascii_digit() {
            number = number.wrapping_mul(10).wrapping_add(u64::from(self.peek() - b'0'));
            self.at += 1;
        }
        Ok(number)
    }

    /// The number that begins at `start`; the next byte is behind its digits.
    #[cold]
    fn long_number(&mut self, start: usize) -> Result<f64, Malformed> {
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), b'+' | b'-'));
            self.digits(0)?;
        }
        let number = self.text[start..self.at].parse::<f64>();
        number.ok().filter(|number| number.is_finite()).ok_or(Malformed(start))
    }
}

/// Those that a `f64` holds exactly, as far as fifteen digits can need them.
const POWERS_OF_TEN: [f64; 16] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// A set bit in the lowest byte of `word` that ends a plain piece of a string: a quotation mark, a backslash, or a
/// control character. Higher bits may be set for nothing; without any such byte the result is 0.
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (equal(b'"') | equal(b'\\') | below(word, 0x20)) & HIGH
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::super::document::{Look, Scratch, Value};
    use super::super::places::{Boxes, InBoxes};
    use super::{Malformed, decode, special};

    /// The document as another decoder's tree.
    fn json(value: &Value<InBoxes>) -> Json {
        match value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(number) => Json::from(*number),
            Value::Text(text) => Json::from(Boxes.read(text)),
            Value::Array(array) => Boxes.values(array).iter().map(json).collect(),
            Value::Object(object) => {
                let members = Boxes.members(object).iter();
                members.map(|member| (member.key.to_string(), json(&member.value))).collect()
            }
        }
    }

    /// The same, with every number as a float.
    fn expected(text: &str) -> Json {
        fn floats(value: Json) -> Json {
            match value {
                Json::Number(number) => Json::from(number.as_f64().expect("a number")),
                Json::Array(values) => values.into_iter().map(floats).collect(),
                Json::Object(members) => {
                    members.into_iter().map(|(key, value)| (key, floats(value))).collect()
                }
                other => other,
            }
        }
        floats(serde_json::from_str(text).expect("JSON"))
    }

    fn decoded(text: &str) -> Result<Json, Malformed> {
        decode(text, &mut Boxes, &mut Scratch::new()).map(|value| json(&value))
    }

    #[test]
    fn documents_mean_what_they_mean_to_others() {
        for text in [
            "null",
            " [ true , false,null ] \n",
            "{}",
            "[]",
            "[[],[[]],{\"a\":{}}]",
            "{\"a\":1,\"b\":[2,{\"c\":\"d\"}],\"\":\"\"}",
            "[0,-0,1,-1,12,123456789012345,0.5,-2.25,1234567.12345678,0.000000000000001]",
            "[9007199254740993,18446744073709551616,0.1234567890123456789,1e3,1E-7,-2.5e+10,5e-324]",
            "[1.7976931348623157e308,123456789012345678901234567890]",
            r#"["\"\\\/\b\f\n\r\t","\u0041\u00e9\u20ac\ud83d\ude00","a\nlong string\twith \u0020 escapes"]"#,
            "[\"\u{e9}\u{20ac}\u{1f600} plain, of more than eight bytes\"]",
        ] {
            assert_eq!(decoded(text), Ok(expected(text)), "{text}");
        }
        // Plain pieces of every length end at every place of a word.
        for length in 0..40 {
            for end in ["\"", "\\n\"", "\u{e9}\""] {
                let text = format!("\"{}{end}", "x".repeat(length));
                assert_eq!(decoded(&text), Ok(expected(&text)), "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_json_is_refused_where_it_is_wrong() {
        for (text, at) in [
            ("", 0),
            ("  ", 2),
            ("nul", 0),
            ("truth", 0),
            ("[1,]", 3),
            ("[1 2]", 3),
            ("[1", 2),
            ("{\"a\" 1}", 5),
            ("{\"a\":1,}", 7),
            ("{a:1}", 1),
            ("[1]]", 3),
            ("01", 1),
            ("-", 1),
            ("1.", 2),
            (".5", 0),
            ("1e", 2),
            ("1e999", 0),
            ("+1", 0),
            ("\"abc", 4),
            ("\"a\u{1}\"", 2),
            ("\"0123456789\u{1f}\"", 11),
            (r#""\x""#, 2),
            (r#""\u12g4""#, 5),
            (r#""\ud800""#, 7),
            (r#""\ud800\n""#, 8),
            (r#""\ud800\u0041""#, 13),
            (r#""\udc00""#, 7),
        ] {
            assert_eq!(decoded(text), Err(Malformed(at)), "{text}");
            assert!(serde_json::from_str::<Json>(text).is_err(), "{text}");
        }
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(decoded(&nested(128)).is_ok());
        assert_eq!(decoded(&nested(129)), Err(Malformed(128)));
    }

    #[test]
    fn the_lowest_special_byte_of_a_word_is_found() {
        for place in 0..8 {
            for byte in 0..=u8::MAX {
                for (before, behind) in [(b'a', b'"'), (0xff, 0x01), (b' ', b'\\'), (0x80, b'z')] {
                    let mut word = [behind; 8];
                    word[..place].fill(before);
                    word[place] = byte;
                    let is_special = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
                    let found = special(u64::from_le_bytes(word));
                    match word.iter().position(is_special) {
                        Some(first) => assert_eq!(found.trailing_zeros() as usize / 8, first),
                        None => assert_eq!(found, 0, "{word:?}"),
                    }
                }
            }
        }
    }
}
