//! A headless Chromium that opens a page, uses mouse and keyboard on it, and reads what it shows. It is driven over a
//! pipe by the Chrome DevTools Protocol, so no port is opened.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The reason of a test that skips because [`Browser::start`] found none.
pub const ABSENT: &str = "there is no Chromium here: `cargo xtask test` installs Debian's as root";

/// A browser with one page. Killed, and reaped, on `Drop`.
#[derive(Debug)]
pub struct Browser {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    calls: u64,
    // Dropped after the process.
    _profile: TempDir,
}

impl Browser {
    /// Starts the browser; `None` if there is no Chromium.
    ///
    /// # Errors
    /// When it cannot be started, or does not answer.
    pub fn start() -> Result<Option<Self>> {
        let Some(program) = find() else { return Ok(None) };
        let profile = TempDir::new().context("a folder for the browser")?;
        let mut command = Command::new("sh");
        // Chromium reads commands from fd 3 and writes answers to fd 4. The timeout ends a hung one, and our calls.
        command.args(["-c", "exec timeout 120 \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1"]);
        command.arg(program).args([
            "--headless=new",
            "--remote-debugging-pipe",
            // The sandbox refuses root; the page is our own and has no network.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--window-size=1000,1400",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.env("HOME", profile.path());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let to = process.stdin.take().context("no pipe")?;
        let from = BufReader::new(process.stdout.take().context("no pipe")?);
        let mut browser = Self { process, to, from, session: None, calls: 0, _profile: profile };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", &attach)?;
        browser.session = session["sessionId"].as_str().map(Into::into);
        browser.call("Page.enable", &json!({}))?;
        Ok(Some(browser))
    }

    fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.to.write_all(message.to_string().as_bytes())?;
        self.to.write_all(b"\0")?;
        self.to.flush()?;
        loop {
            let answer = self.next().with_context(|| method.to_owned())?;
            if answer["id"] == self.calls {
                ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return Ok(answer["result"].clone());
            }
        }
    }

    fn next(&mut self) -> Result<Value> {
        let mut message = Vec::new();
        self.from.read_until(0, &mut message)?;
        ensure!(message.pop().is_some(), "the browser has ended");
        Ok(serde_json::from_slice(&message)?)
    }

    /// Opens a file and waits until it has loaded completely.
    ///
    /// # Errors
    /// When it is not.
    pub fn open(&mut self, file: &Path) -> Result<()> {
        let url = format!("file://{}", file.display());
        self.call("Page.navigate", &json!({ "url": url }))?;
        loop {
            if self.next()?["method"] == "Page.loadEventFired" {
                return Ok(());
            }
        }
    }

    /// Evaluates a JavaScript expression in the page.
    ///
    /// # Errors
    /// When the expression throws.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let params = json!({ "expression": expression, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", &params)?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            bail!("{expression}: {thrown}");
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Drags the mouse from one place to another.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn drag(&mut self, from: (f64, f64), to: (f64, f64)) -> Result<()> {
        for (kind, (x, y)) in [("mousePressed", from), ("mouseMoved", to), ("mouseReleased", to)] {
            let event = json!({
                "type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1,
            });
            self.call("Input.dispatchMouseEvent", &event)?;
        }
        Ok(())
    }

    /// Presses and releases a named key.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn press(&mut self, key: &str) -> Result<()> {
        for kind in ["rawKeyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", &json!({ "type": kind, "key": key, "code": key }))?;
        }
        Ok(())
    }

    /// Sets the medium (such as `print`) and the `prefers-color-scheme` (such as `dark`) that pages see.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn prefer(&mut self, medium: &str, scheme: &str) -> Result<()> {
        let features = [json!({ "name": "prefers-color-scheme", "value": scheme })];
        let params = json!({ "media": medium, "features": features });
        self.call("Emulation.setEmulatedMedia", &params).map(drop)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.session = None;
        let closed = self.call("Browser.close", &json!({}));
        // It writes to its profile folder until it is gone.
        let _ = closed.and_then(|_| Ok(self.from.read_to_end(&mut Vec::new())?));
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join("chromium")).find(|file| file.is_file())
}
