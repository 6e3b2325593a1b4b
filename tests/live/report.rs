//! `memstock report` in a real browser: mouse and keys move the limit, and the page then shows the figures of `memstock
//! rehearse --json`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use memstock_tests::browser::{ABSENT, Browser};
use memstock_tests::poll::SOON;
use memstock_tests::process::memstock;
use memstock_tests::skip::skip;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::recorded;

/// An open report, and the folder with its recording.
struct Open {
    browser: Browser,
    dir: TempDir,
}

/// Opens a report; `None`, with a reported skip, if there is no browser.
fn open(test: &str) -> Result<Option<Open>> {
    let Some(mut browser) = Browser::start()? else {
        skip(test, ABSENT);
        return Ok(None);
    };
    let dir = TempDir::new()?;
    let page = dir.path().join("report.html");
    recorded::write(&file(dir.path()))?;
    let written = memstock([
        "report".as_ref(),
        file(dir.path()).as_os_str(),
        "--html".as_ref(),
        page.as_os_str(),
    ])?
    .finish(6 * SOON)?;
    ensure!(written.code() == 0 && written.stderr.is_empty(), "{written:?}");
    browser.open(&page)?;
    Ok(Some(Open { browser, dir }))
}

fn file(dir: &Path) -> std::path::PathBuf {
    dir.join("memstock.data")
}

impl Open {
    /// The place of a limit of `mib` MiB on the screen.
    fn place(&mut self, mib: u64) -> Result<(f64, f64)> {
        let place = self.browser.evaluate(&format!(
            "svg.scrollIntoView({{ block: 'center' }});
             (() => {{ const box = svg.getBoundingClientRect(), zoom = box.height / svg.viewBox.baseVal.height;
             return [box.left + (left + right) / 2 * zoom,
                     box.top + (bottom - (bottom - highest) * {} / facts.scale) * zoom]; }})()",
            mib << 20
        ))?;
        let [x, y] = [0, 1].map(|n| place[n].as_f64());
        Ok((x.context("no place")?, y.context("no place")?))
    }

    fn drag(&mut self, from: u64, to: u64) -> Result<()> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        self.browser.drag(from, to)
    }

    fn said(&mut self) -> Result<String> {
        let said = self.browser.evaluate("said.textContent")?;
        Ok(said.as_str().context("nothing is said")?.to_owned())
    }

    /// The states that the timeline shows by colours, in order.
    fn states(&mut self) -> Result<Value> {
        let states = "[...shades.querySelectorAll('rect:not([opacity])')].map(r => r.classList[1])";
        self.browser.evaluate(states)
    }
}

#[test]
fn the_line_is_dragged_and_the_time_recoloured() -> Result<()> {
    let Some(mut page) = open("report::the_line_is_dragged_and_the_time_recoloured")? else {
        return Ok(());
    };
    page.drag(250, 320)?;
    ensure!(page.said()?.ends_with("fits"), "{}", page.said()?);
    ensure!(page.states()? == json!(["fits"]), "{}", page.states()?);
    page.drag(320, 250)?;
    ensure!(page.said()?.contains("reclaims, 0B read again, 0.0 % slower"), "{}", page.said()?);
    ensure!(page.states()? == json!(["fits", "reclaims", "fits"]), "{}", page.states()?);
    page.drag(250, 210)?;
    ensure!(page.said()?.contains(": slow, 3"), "{}", page.said()?);
    // It is slow when the file is read again, which is after the peak.
    let states = json!(["fits", "reclaims", "fits", "slow", "fits"]);
    ensure!(page.states()? == states, "{}", page.states()?);
    let files = page.browser.evaluate("files.textContent")?;
    ensure!(files.as_str().is_some_and(|text| text.starts_with("/usr/lib/cc1")), "{files}");
    page.drag(210, 150)?;
    ensure!(page.said()?.contains("cc1plus dies at 5.0 s"), "{}", page.said()?);
    ensure!(page.states()? == json!(["fits", "oom"]), "{}", page.states()?);
    Ok(())
}

#[test]
fn keys_do_what_the_mouse_does() -> Result<()> {
    let Some(mut page) = open("report::keys_do_what_the_mouse_does")? else { return Ok(()) };
    let now = "Number(line.getAttribute('aria-valuenow'))";
    page.browser.evaluate("line.focus()")?;
    let before = page.browser.evaluate(now)?.as_f64();
    page.browser.press("ArrowUp")?;
    let up = page.browser.evaluate(now)?.as_f64();
    page.browser.press("PageDown")?;
    let down = page.browser.evaluate(now)?.as_f64();
    ensure!(before < up && down < before, "{before:?} {up:?} {down:?}");
    page.browser.press("Home")?;
    ensure!(
        page.browser.evaluate(now)? == 0 && page.states()? == json!(["oom"]),
        "{}",
        page.states()?
    );
    page.browser.press("End")?;
    ensure!(
        page.browser
            .evaluate("line.getAttribute('aria-valuetext')")?
            .as_str()
            .is_some_and(|text| text.ends_with("fits"))
    );
    Ok(())
}

#[test]
fn the_figures_are_those_of_rehearse() -> Result<()> {
    let Some(mut page) = open("report::the_figures_are_those_of_rehearse")? else { return Ok(()) };
    // Compared as text, since a browser reads 5.0 as 5.
    let told = page.browser.evaluate("document.getElementById('rehearsal').textContent")?;
    let told: Value = serde_json::from_str(told.as_str().context("nothing is told")?)?;
    let mut words = vec![
        "rehearse".to_owned(),
        file(page.dir.path()).display().to_string(),
        "--json".to_owned(),
    ];
    let limits = told["limits"].as_array().context("no limits")?;
    ensure!(limits.len() > 20, "{told:#}");
    words.extend(limits.iter().flat_map(|row| ["--limit".to_owned(), row["limit"].to_string()]));
    let finished = memstock(&words)?.finish(6 * SOON)?;
    let rehearsed: Value = serde_json::from_str(&finished.stdout)?;
    for name in ["limits", "command", "peak", "needed_peak", "recommend", "assumes"] {
        ensure!(rehearsed[name] == told[name], "{name}: {rehearsed:#} {told:#}");
    }
    Ok(())
}

#[test]
fn it_is_dark_where_that_is_preferred_and_white_on_paper() -> Result<()> {
    let Some(mut page) = open("report::it_is_dark_where_that_is_preferred_and_white_on_paper")?
    else {
        return Ok(());
    };
    let ground = "getComputedStyle(document.body).backgroundColor";
    let sheet = "getComputedStyle(document.querySelector('svg rect')).fill";
    for (medium, scheme, colour) in [
        ("screen", "light", "rgb(255, 255, 255)"),
        ("screen", "dark", "rgb(24, 26, 29)"),
        ("print", "light", "rgb(255, 255, 255)"),
    ] {
        page.browser.prefer(medium, scheme)?;
        let found = [page.browser.evaluate(ground)?, page.browser.evaluate(sheet)?];
        ensure!(found == [colour, colour], "{medium} {scheme}: {found:?}");
    }
    Ok(())
}
