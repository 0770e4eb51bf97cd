//! JSON written straight into its place: what a data path says of each request, without a text of its own for each part.
//!
//! Spec:     RFC 8259, section 7 (strings), by `serde_json` where something must be escaped.
//! Not here: values of any shape, which `serde` writes.

/// Lower-case hexadecimal digits.
const DIGITS: [u8; 16] = *b"0123456789abcdef";

/// An object that is being written.
#[derive(Debug)]
pub struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

impl<'o> Object<'o> {
    /// Begins one.
    #[must_use]
    pub fn begin(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, is_empty: true }
    }

    /// The name of the next member; `name` is a word of ours that needs no escapes. What is written to the result is its value.
    pub fn member(&mut self, name: &str) -> &mut Vec<u8> {
        self.out.extend_from_slice(if self.is_empty { b"\"" } else { b",\"" });
        self.is_empty = false;
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// A member that is a text.
    pub fn text(&mut self, name: &'static str, value: &str) {
        text(self.member(name), &[value]);
    }

    /// A member that is a number.
    pub fn number(&mut self, name: &'static str, value: u64) {
        number(self.member(name), value);
    }

    /// A member that is a list of texts.
    pub fn texts(&mut self, name: &'static str, values: &[String]) {
        let out = self.member(name);
        out.push(b'[');
        for (n, value) in values.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            text(out, &[value]);
        }
        out.push(b']');
    }

    /// A member that is a text: these words with blanks between them.
    pub fn joined(&mut self, name: &'static str, words: &[String]) {
        let out = self.member(name);
        out.push(b'"');
        for (n, word) in words.iter().enumerate() {
            if n > 0 {
                out.push(b' ');
            }
            escaped(out, word);
        }
        out.push(b'"');
    }

    /// Ends it.
    pub fn end(self) {
        self.out.push(b'}');
    }
}

/// A text in quotes: these pieces, one after the other.
pub fn text(out: &mut Vec<u8>, pieces: &[&str]) {
    out.push(b'"');
    for piece in pieces {
        escaped(out, piece);
    }
    out.push(b'"');
}

fn escaped(out: &mut Vec<u8>, text: &str) {
    // All bytes at once, without a way out on the way: several are looked at together so.
    if text.bytes().fold(true, |plain, byte| plain & (byte >= b' ') & (byte != b'"') & (byte != b'\\')) {
        out.extend_from_slice(text.as_bytes());
    } else {
        let quoted = serde_json::Value::from(text).to_string();
        out.extend_from_slice(quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().as_bytes());
    }
}

/// A number in decimal digits.
pub fn number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' | u8::try_from(value % 10).unwrap_or_default();
        value /= 10;
        first = first.saturating_sub(1);
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(first..).unwrap_or_default());
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex<const BYTES: usize>(out: &mut Vec<u8>, bytes: [u8; BYTES]) {
    let digit = |half: u8| DIGITS.get(usize::from(half)).copied().unwrap_or_default();
    out.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap_or_default()
    }

    // J4: whatever a request's path holds, its record is JSON, and says that path.
    #[test]
    fn texts_are_escaped_as_serde_escapes_them() {
        for said in ["", "plain", "with \"quotes\"", "back\\slash", "line\nfeed\t\u{0}\u{1f}\u{7f}", "grüße 🦀", "</script>"] {
            assert_eq!(written(|out| text(out, &[said])), serde_json::Value::from(said).to_string());
            assert_eq!(written(|out| text(out, &["a\n", said])), serde_json::Value::from(format!("a\n{said}")).to_string());
        }
    }

    #[test]
    fn numbers_and_digits_are_written_whole() {
        for value in [0, 1, 9, 10, 99, 100, 1_234_567_890, u64::MAX] {
            assert_eq!(written(|out| number(out, value)), value.to_string());
        }
        assert_eq!(written(|out| hex(out, 0x00ff_10ab_u32.to_be_bytes())), "00ff10ab");
    }

    #[test]
    fn objects_have_commas_between_their_members_alone() {
        assert_eq!(written(|out| Object::begin(out).end()), "{}");
        let all = written(|out| {
            let mut object = Object::begin(out);
            object.text("a", "x");
            object.texts("b", &[]);
            object.texts("c", &["y".to_owned(), "\"".to_owned()]);
            object.joined("d", &["y".to_owned(), "\"".to_owned()]);
            object.number("e", 7);
            object.end();
        });
        assert_eq!(all, r#"{"a":"x","b":[],"c":["y","\""],"d":"y \"","e":7}"#);
    }
}
