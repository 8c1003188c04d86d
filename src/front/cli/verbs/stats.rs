//! `stats`

use std::io::{self, IsTerminal};
use std::time::Duration;

use super::super::args::Syntax;
use super::super::args::container as args;
use super::super::exit::{self, Outcome};
use super::super::render::{format, stats as table};
use super::Front;
use crate::engine::Sample;

/// The share of a processor is that of this time.
const PERIOD: Duration = Duration::from_secs(1);

pub(super) fn stats(front: &Front, syntax: &Syntax, a: args::Stats) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let tty = io::stdout().is_terminal();
    let redraw = tty && !a.no_stream;
    let format = a.format.as_deref().unwrap_or_default();
    let mut before: Vec<Sample> = front.engine.stats(&a.names, a.all)?;
    // A template that cannot be parsed needs no second to be refused.
    format::list(&table::KIND, format, &[], tty)?;
    loop {
        std::thread::sleep(PERIOD);
        let now = front.engine.stats(&a.names, a.all)?;
        let rows: Vec<_> = now
            .iter()
            .map(|sample| {
                let earlier = before.iter().find(|b| b.id == sample.id);
                table::row(sample, earlier, a.no_trunc)
            })
            .collect();
        let text = format::list(&table::KIND, format, &rows, tty)?;
        if redraw {
            // To the top; each line and then the screen cleared to its end.
            exit::print(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")))?;
        } else {
            exit::print(&text)?;
        }
        if a.no_stream {
            return Ok(0);
        }
        before = now;
    }
}
