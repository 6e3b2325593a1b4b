//! Finds the documents' examples: the fenced blocks of Markdown, the command lines in them, and what placeholders stand
//! for. The live test runs them.

use std::path::PathBuf;

/// A fenced block of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The number of its first line, from 1.
    pub line: usize,
    /// The language behind the fence; may be empty.
    pub language: String,
    /// Its lines. A line that ends in a backslash is joined with the next.
    pub lines: Vec<String>,
}

/// The documents whose examples must work: all but the decision records.
pub fn documents() -> Vec<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = std::fs::read_dir(root.join("docs")).into_iter().flatten().flatten();
    let mut found: Vec<_> = docs.map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found.sort();
    found.insert(0, root.join("README.md"));
    found
}

/// The fenced blocks of a document.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_open = false;
    let mut continues = false;
    for (number, line) in text.lines().enumerate() {
        if let Some(language) = line.strip_prefix("```") {
            is_open = !is_open;
            if is_open {
                let language = language.trim().to_owned();
                blocks.push(Block { line: number + 1, language, lines: Vec::new() });
            }
            continue;
        }
        let Some(block) = blocks.last_mut().filter(|_| is_open) else { continue };
        let (text, goes_on) = line.strip_suffix('\\').map_or((line, false), |text| (text, true));
        match block.lines.last_mut().filter(|_| continues) {
            Some(last) => last.push_str(text.trim_start()),
            None => block.lines.push(text.to_owned()),
        }
        continues = goes_on;
    }
    blocks
}

impl Block {
    /// The commands a reader would type, without comments: the lines behind `$ `, or if there are none, those that
    /// begin with `memstock` or `cargo`.
    pub fn commands(&self) -> Vec<String> {
        if !matches!(self.language.as_str(), "" | "console" | "sh") {
            return Vec::new();
        }
        let typed: Vec<_> = self.lines.iter().filter_map(|line| line.strip_prefix("$ ")).collect();
        let typed = if typed.is_empty() && self.language != "console" {
            let ours = |line: &&str| line.starts_with("memstock ") || line.starts_with("cargo ");
            self.lines.iter().map(String::as_str).filter(ours).collect()
        } else {
            typed
        };
        let bare = |line: &str| line.split(" #").next().unwrap_or_default().trim().to_owned();
        typed.into_iter().map(bare).collect()
    }

    /// The events in memstock's output, as text and as JSON.
    pub fn events(&self) -> impl Iterator<Item = &str> {
        let is_event = |line: &&str| line.starts_with("event: ") || line.starts_with("{\"seq\":");
        self.lines.iter().map(String::as_str).filter(is_event)
    }
}

/// Expands the optional parts, `[--flag VALUE]`, of a command line: once with none of them, once with all.
pub fn variants(command: &str) -> Vec<String> {
    if !command.contains(" [") {
        return vec![command.to_owned()];
    }
    let mut without = String::new();
    let mut depth = 0;
    for c in command.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            c if depth == 0 => without.push(c),
            _ => {}
        }
    }
    let without = without.split_whitespace().collect::<Vec<_>>().join(" ");
    vec![without, command.replace(['[', ']'], "")]
}

/// Replaces the names in a document's command by a test's own: whole words, and each side of a `=`.
pub fn substitute(command: &str, names: &[(&str, &str)]) -> String {
    let replaced = |part: &str| {
        let found = names.iter().find(|(name, _)| *name == part);
        found.map_or(part, |(_, stands_for)| stands_for).to_owned()
    };
    let word = |word: &str| word.split('=').map(replaced).collect::<Vec<_>>().join("=");
    command.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
a
```
memstock show  # look
memstock run \\
    -- x
event: lost
else
```
```console
$ memstock drain
memstock is not typed
```
```toml
memstock = 1
```
";

    #[test]
    fn what_is_typed_is_found() {
        let blocks = blocks(TEXT);
        let lines: Vec<_> = blocks.iter().map(|block| block.line).collect();
        assert_eq!(lines, [2, 9, 13]);
        assert_eq!(blocks[0].commands(), ["memstock show", "memstock run -- x"]);
        assert_eq!(blocks[0].events().collect::<Vec<_>>(), ["event: lost"]);
        assert_eq!(blocks[1].commands(), ["memstock drain"]);
        assert_eq!(blocks[2].commands(), [""; 0]);
    }

    #[test]
    fn optional_parts_are_tried_both_ways() {
        assert_eq!(variants("a b"), ["a b"]);
        assert_eq!(variants("a [--b] c [--d N]"), ["a c", "a --b c --d N"]);
    }

    #[test]
    fn whole_words_are_replaced() {
        let names = [("/a", "/t/a"), ("/a/b", "/t/b"), ("N", "0")];
        assert_eq!(substitute("x /a /a/b /a=N Na", &names), "x /t/a /t/b /t/a=0 Na");
    }
}
