//! The styles. A modifier or a word also says what a colour says, so that colours can be left out.

use ratatui::style::{Color, Modifier, Style};

use super::super::column::Pressure;

/// All styles.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    /// The program's name.
    pub name: Style,
    /// Titles of panes.
    pub title: Style,
    /// The rules behind titles.
    pub rule: Style,
    /// Heads of columns.
    pub head: Style,
    /// The head of the column that rows are sorted by.
    pub sorted: Style,
    /// The selected row.
    pub selected: Style,
    /// Secondary text.
    pub faint: Style,
    /// What must be noticed: a pause, a question.
    pub alert: Style,
    /// Keys, in the bottom line and in the help.
    pub key: Style,
    /// Stocked pages over time.
    pub history: Style,
    bars: [Style; 3],
}

impl Theme {
    /// Styles with or without colours.
    pub fn new(colour: bool) -> Self {
        let style = |color: Color, modifier| {
            let plain = Style::new().add_modifier(modifier);
            if colour { plain.fg(color) } else { plain }
        };
        let (none, bold) = (Modifier::empty(), Modifier::BOLD);
        Self {
            name: style(Color::Cyan, bold),
            title: style(Color::Cyan, bold),
            rule: style(Color::DarkGray, none),
            head: style(Color::Reset, bold),
            sorted: style(Color::Cyan, bold | Modifier::UNDERLINED),
            selected: style(Color::Reset, Modifier::REVERSED),
            faint: style(Color::DarkGray, Modifier::DIM),
            alert: style(Color::Yellow, bold | Modifier::REVERSED),
            key: style(Color::Cyan, bold),
            history: style(Color::Cyan, none),
            bars: [style(Color::Green, none), style(Color::Yellow, bold), style(Color::Red, bold)],
        }
    }

    /// The style for how close a cgroup is to its limit.
    pub fn pressure(&self, pressure: Pressure) -> Style {
        self.bars[match pressure {
            Pressure::None => 0,
            Pressure::Near => 1,
            Pressure::Refused => 2,
        }]
    }
}
