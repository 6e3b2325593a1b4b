//! Owns the manual: a page for memstock and one for each verb, rendered from the same declaration as `--help`, so that
//! the two cannot differ. Must not write files.

use std::io;

use clap::Command;
use clap_mangen::Man;

use crate::cli;

/// The program's name, and that of its first page.
pub const NAME: &str = "memstock";
/// Section 1 is user commands, including those that only root may run.
const SECTION: &str = "1";

/// A manual page.
#[derive(Debug)]
pub struct Page {
    /// The verb that it is about; none for memstock itself.
    pub verb: Option<String>,
    /// Its text, in the format of man(7).
    pub text: Vec<u8>,
}

impl Page {
    /// The name of its file.
    pub fn file_name(&self) -> String {
        format!("{}.{SECTION}", title(self.verb.as_deref()))
    }
}

fn title(verb: Option<&str>) -> String {
    verb.map_or_else(|| NAME.into(), |verb| format!("{NAME}-{verb}"))
}

/// All pages, memstock's own first.
///
/// # Errors
/// clap_mangen cannot render a page, which is not expected.
pub fn pages() -> io::Result<Vec<Page>> {
    let mut command = cli::shown();
    command.build();
    let mut pages = vec![first(&command)?];
    for verb in command.get_subcommands() {
        pages.push(of_verb(verb)?);
    }
    Ok(pages)
}

fn first(command: &Command) -> io::Result<Page> {
    let mut text = render(command)?;
    section(&mut text, "EXIT STATUS");
    text.extend(b".nf\n");
    // Without their heading: this section has one.
    for line in cli::EXIT_CODES.lines().skip(1) {
        text.extend(format!("{}\n", line.replace('-', "\\-")).as_bytes());
    }
    text.extend(b".fi\n");
    let verbs = command.get_subcommands().map(Command::get_name);
    see_also(&mut text, verbs.map(|verb| title(Some(verb))));
    Ok(Page { verb: None, text })
}

fn of_verb(verb: &Command) -> io::Result<Page> {
    let mut text = render(verb)?;
    see_also(&mut text, [NAME.into()].into_iter());
    Ok(Page { verb: Some(verb.get_name().into()), text })
}

fn render(command: &Command) -> io::Result<Vec<u8>> {
    let usage = command.clone().render_usage().to_string();
    // clap_mangen's own would leave out the `--` before COMMAND.
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
    let mut text = Vec::new();
    let title = command.get_display_name().unwrap_or(NAME).to_uppercase();
    Man::new(command.clone().override_usage(usage))
        .title(title)
        .section(SECTION)
        .source(format!("{NAME} {}", env!("CARGO_PKG_VERSION")))
        .manual("Memory-cgroup controller")
        .render(&mut text)?;
    // clap_mangen writes an empty date as nothing, and the next field would be taken for the date.
    let text = String::from_utf8_lossy(&text);
    Ok(text.replacen(&format!(" {SECTION}  "), &format!(" {SECTION} \"\" "), 1).into_bytes())
}

fn section(text: &mut Vec<u8>, heading: &str) {
    text.extend(format!(".SH \"{heading}\"\n").as_bytes());
}

fn see_also(text: &mut Vec<u8>, pages: impl Iterator<Item = String>) {
    section(text, "SEE ALSO");
    let pages: Vec<_> =
        pages.map(|page| format!(".BR {} ({SECTION})", page.replace('-', "\\-"))).collect();
    text.extend(pages.join(" ,\n").as_bytes());
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_that_is_shown_has_a_page() {
        let pages = pages().unwrap();
        let names: Vec<_> = pages.iter().map(Page::file_name).collect();
        assert_eq!(names[0], "memstock.1");
        assert!(names.contains(&"memstock-run.1".to_owned()), "{names:?}");
        assert!(!names.contains(&"memstock-guard.1".to_owned()), "{names:?}");
        assert!(!names.contains(&"memstock-help.1".to_owned()), "{names:?}");
        for page in &pages {
            let text = std::str::from_utf8(&page.text).unwrap();
            for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "\"SEE ALSO\""] {
                assert!(text.contains(&format!(".SH {heading}\n")), "{}: {text}", page.file_name());
            }
        }
    }
}
