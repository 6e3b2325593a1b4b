//! A minimal HTTP client for our server and for Prometheus.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};

use crate::poll::SOON;

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// All header lines.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The value of a header; empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut found = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        found.next().map_or("", |(_, value)| value.trim())
    }
}

/// Sends a request with further header lines, and reads the whole answer.
///
/// # Errors
/// When there is no answer in time, or it is not HTTP.
pub fn ask(to: SocketAddr, method: &str, path: &str, headers: &[&str]) -> Result<Answer> {
    let mut stream = TcpStream::connect(to).with_context(|| to.to_string())?;
    stream.set_read_timeout(Some(SOON))?;
    // HTTP/1.0, so that the answer is not chunked.
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {to}\r\n{headers}\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("the answer to {method} {path}"))?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no HTTP: {text}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no status: {head}"))?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

/// Gets `path`, and returns the body.
///
/// # Errors
/// As [`ask`], and when the status is not 200.
pub fn get(from: SocketAddr, path: &str) -> Result<String> {
    let answer = ask(from, "GET", path, &[])?;
    ensure!(answer.status == 200, "GET {path}: {answer:?}");
    Ok(answer.body)
}

/// Encodes `text` as part of a query.
pub fn encoded(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
