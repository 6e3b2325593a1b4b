//! Snapshots of the screen at several sizes, and what must hold at every size.

use std::path::Path;
use std::time::{Duration, Instant};

use memstock_common::KernelSlot;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;

use super::*;
use crate::journal::Entry;
use crate::journal::record::{Cgroup, Record};
use crate::model::kernel::{CpuStocks, View};
use crate::view::top::app::{Mode, Target};
use crate::view::top::fixture::{cgroup, later, reading, sample};

fn app() -> App {
    let mut app = App::new(4096, Duration::from_secs(1));
    let start = Instant::now();
    app.take(reading(sample(), start));
    app.take(reading(later(), start + Duration::from_secs(1)));
    let added = |seq, id, path: &str| Entry {
        seq,
        time_ns: seq,
        time: format!("2026-01-31T12:00:0{seq}.002Z"),
        record: Record::CgroupAdded { cgroup: Cgroup::new(id, Some(Path::new(path))) },
    };
    app.tell(&[added(1, 1, "/web"), added(2, 3, "/web/api"), added(3, 4, "/web/static")]);
    app
}

fn buffer(app: &mut App, width: u16, height: u16, theme: &Theme) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app, theme)).unwrap();
    terminal.backend().buffer().clone()
}

/// The lines of the screen, without trailing blanks.
fn lines(app: &mut App, width: u16, height: u16) -> Vec<String> {
    let buffer = buffer(app, width, height, &Theme::new(true));
    let line = |cells: &[ratatui::buffer::Cell]| {
        let text: String = cells.iter().map(|cell| cell.symbol()).collect();
        text.trim_end().to_owned()
    };
    buffer.content.chunks(width.into()).map(line).collect()
}

/// Compares with the file in `snapshots`, or, when blessing, writes it.
fn expect(name: &str, lines: &[String]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/view/top/draw/snapshots").join(name);
    let text = lines.join("\n") + "\n";
    if std::env::var_os("MEMSTOCK_BLESS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        text == expected,
        "{}: see `cargo xtask test --bless`; now it is\n{text}",
        file.display()
    );
}

#[test]
fn screens_are_as_they_were() {
    for (width, height) in [(80, 24), (200, 50), (40, 10), (20, 5)] {
        expect(&format!("{width}x{height}.snap"), &lines(&mut app(), width, height));
    }
}

#[test]
fn overlays_are_as_they_were() {
    let mut app = app();
    app.mode = Mode::Help;
    expect("help.snap", &lines(&mut app, 80, 24));
    app.mode = Mode::Drain(Target::Subtree { id: 1, path: "/web".into() });
    app.paused = true;
    expect("drain.snap", &lines(&mut app, 80, 24));
    app.mode = Mode::Filter(String::new());
    app.order.filter = "stat".into();
    app.reorder();
    expect("filter.snap", &lines(&mut app, 80, 24));
}

/// An app that shows the kernel's stocks: CPU 0 has three, one of them for a removed cgroup, and CPU 1 has none.
fn with_kernel() -> App {
    let slot = |cgroup_id, left| KernelSlot { cgroup_id, left };
    let pages = vec![slot(1, 61), slot(3, 4), slot(0, 0), slot(9, 2)];
    let cpus = vec![
        CpuStocks { cpu: 0, pages, bytes: vec![slot(3, 1024)] },
        CpuStocks { cpu: 1, pages: vec![slot(0, 0)], bytes: vec![slot(0, 0)] },
    ];
    let paths = [(1, "/web".into()), (3, "/web/api".into())].into();
    App { kernel: Some(View { cpus, paths, ..View::default() }), ..app() }
}

#[test]
fn the_kernels_stocks_take_the_place_of_the_cpus() {
    let mut app = with_kernel();
    expect("kernel.snap", &lines(&mut app, 80, 40));
    app.first_cpu = 9;
    let screen = lines(&mut app, 200, 50);
    let has = |text: &str| screen.iter().any(|line| line.contains(text));
    assert!(
        has("STOCKS OF THE KERNEL") && has("1      -         -  -") && !has("1.0KiB  /web/api")
    );
}

#[test]
fn nothing_breaks_at_any_size_in_any_mode() {
    let modes = [Mode::View, Mode::Help, Mode::Filter(String::new()), Mode::Drain(Target::All)];
    for mode in modes {
        for (width, height) in
            (1..160).step_by(13).flat_map(|w| (1..40).step_by(2).map(move |h| (w, h)))
        {
            let mut app = app();
            app.mode = mode.clone();
            buffer(&mut app, width, height, &Theme::new(true));
            buffer(&mut with_kernel(), width, height, &Theme::new(true));
        }
    }
    let mut nothing = App::new(4096, Duration::from_secs(1));
    buffer(&mut nothing, 80, 24, &Theme::new(true));
}

#[test]
fn without_colour_there_is_none() {
    let is_coloured = |theme: &Theme| {
        let buffer = buffer(&mut app(), 80, 24, theme);
        buffer.content.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(is_coloured(&Theme::new(true)));
    assert!(!is_coloured(&Theme::new(false)));
}

/// No name that the kernel allows for a cgroup overflows its column.
#[test]
fn strange_names_break_no_column() {
    let long = "x".repeat(255);
    let names = [
        "a b",
        "tab\there",
        "\x1b[31mred\x1b[0m",
        "日本語の名前がとても長いとき",
        "e\u{301}\u{301}",
        "\u{202e}rtl",
    ];
    for name in names.into_iter().chain([long.as_str()]) {
        for (width, height) in [(40, 10), (80, 24), (200, 50)] {
            let mut app = app();
            let mut sample = sample();
            sample.cgroups = vec![cgroup(9, &format!("/{name}"), None, 256, Some(1024))];
            app.reading = Some(reading(sample, Instant::now()));
            app.reorder();
            let row =
                lines(&mut app, width, height).into_iter().find(|line| line.contains("1.0MiB"));
            let row = row.unwrap();
            assert!(!row.contains(char::is_control), "{row:?}");
            let buffer = buffer(&mut app, width, height, &Theme::new(true));
            let y = if height < 12 { 3 } else { 4 };
            // The usage ends in the same column, whatever stands before it.
            let symbols = |x| [x, x + 1, x + 2].map(|x| buffer[(x, y - 1)].symbol());
            let end = (0..width - 2).find(|&x| symbols(x) == ["G", "E", " "]).unwrap() + 1;
            assert_eq!(buffer[(end, y)].symbol(), "B", "{name:?} at {width}: {row}");
        }
    }
}
