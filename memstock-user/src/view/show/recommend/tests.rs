//! Each format of a recommendation.

use std::time::Duration;

use super::*;
use crate::forecast::rehearse::WhatIf;
use crate::recording::{TaskEvent, TaskEventKind};
use crate::view::show::rehearse::tests::recording;

#[test]
fn each_format_has_the_limits_and_says_why() {
    let mut recording = recording();
    let kind = TaskEventKind::FollowsLimit { why: "JVM".into() };
    recording.tasks.push(TaskEvent { at: Duration::ZERO, pid: 3, kind });
    let rehearsals = [Rehearsal::new(&recording, WhatIf::default())];
    let goal = Goal { slower: 0.07, ..Goal::default() };
    let advice = Advice { max: 300 << 20, high: 220 << 20, ..Advice::of(&rehearsals, goal) };
    let recommended = Recommended { rehearsals: &rehearsals, goal, advice };
    let text = |write: fn(&mut dyn Write, &Recommended<'_>) -> io::Result<()>| {
        let mut text = Vec::new();
        write(&mut text, &recommended).unwrap();
        String::from_utf8(text).unwrap()
    };
    let warning = "a task: JVM: verify";
    for (text, parts) in [
        (
            text(write),
            &["MemoryMax=300M\n", "MemoryHigh=220M\n", "at most 7 % slower, and 10 %"][..],
        ),
        (text(yaml), &["  limits:\n    memory: 300Mi\n", "  requests:\n    memory: 220Mi\n"]),
        (text(systemd), &["[Service]\nMemoryMax=300M\nMemoryHigh=220M\n"]),
    ] {
        for part in parts.iter().chain(&[warning, "200.0MiB needed, 206.0MiB with what cannot"]) {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
    let value = document(&recommended);
    assert_eq!(value["recommend"], json!({ "max": 300 << 20, "high": 220 << 20 }));
    assert_eq!((&value["warnings"][0], &value["recordings"]), (&json!(warning), &json!(1)));
}
