//! A plan printed as a table.

use std::fmt;

use polaron_common::{Align, table, thousands};

use super::{Plan, PlanEntry, Role};
use crate::matrix::{Layout, Placement};
use crate::rule::{Projection, state_in_words};

fn blocks_suffix(placement: Placement) -> String {
    let layout = match (placement.layout, placement.window) {
        (Layout::OutIn, true) => " [out, in, window]",
        (Layout::InOut, true) => " [in, out, window]",
        (Layout::OutIn, false) => " [out, in]",
        (Layout::InOut, false) => "",
    };
    let Some(blocks) = placement.blocks else { return layout.to_string() };
    let axis = blocks.axis().name();
    match blocks.sizes() {
        None => format!("{layout}, {} {axis} blocks", blocks.count()),
        Some(sizes) => {
            let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
            format!("{layout}, {axis} parts {}", sizes.join(" + "))
        }
    }
}

/// Whether two entries share a line: the same role, rule, placement, settings, learning rate and schedule.
fn same_line(a: &PlanEntry, b: &PlanEntry) -> bool {
    let optimizer = match (a.config(), b.config()) {
        (None, None) => a.label() == b.label(),
        (a, b) => a == b,
    };
    let place = |entry: &PlanEntry| (entry.role, entry.rules.last().copied(), entry.placement, entry.lr);
    let kept = |entry: &PlanEntry| entry.projection.as_ref().map(Projection::label);
    optimizer && (place(a), a.course(), kept(a)) == (place(b), b.course(), kept(b))
}

/// Entries that share role, rule and placement, as one line of the table.
struct Line<'a> {
    first: &'a PlanEntry,
    tensors: usize,
    parameters: usize,
}

impl Plan {
    fn lines(&self) -> Vec<Line<'_>> {
        let mut lines: Vec<Line<'_>> = Vec::new();
        for entry in self.entries() {
            let same = |line: &&mut Line<'_>| same_line(line.first, entry);
            match lines.iter_mut().find(same) {
                Some(line) => {
                    line.tensors += 1;
                    line.parameters += entry.count();
                }
                None => lines.push(Line { first: entry, tensors: 1, parameters: entry.count() }),
            }
        }
        lines.sort_by_key(|line| (line.first.role.is_none(), line.first.role, line.first.rules.last().copied()));
        lines
    }

    fn cells(&self, line: &Line<'_>) -> Vec<String> {
        let entry = line.first;
        let settings = match entry.is_frozen() {
            true => ["", "", "", "none"].map(String::from),
            false => [
                format!("{}", entry.lr),
                entry.weight_decay().map_or("its own".into(), |decay| format!("{decay}")),
                entry.scale().map_or("its own", |scale| scale.formula()).to_string(),
                entry.memories().map_or("its own".into(), |memories| state_in_words(&memories)),
            ],
        };
        let [lr, decay, scale, state] = settings;
        let share = 100.0 * line.parameters as f64 / self.parameters() as f64;
        let mut cells = vec![
            entry.role_name().to_string(),
            optimizer(entry),
            thousands(line.tensors as u64),
            thousands(line.parameters as u64),
            format!("{share:.1} %"),
            lr,
            decay,
            scale,
            state,
        ];
        if !self.schedules().is_empty() {
            let main = if entry.is_frozen() { "" } else { "main" };
            cells.push(entry.schedule.map_or(main.into(), |schedule| schedule.to_string()));
        }
        cells
    }
}

fn optimizer(entry: &PlanEntry) -> String {
    match (entry.is_frozen(), entry.role) {
        (true, Some(Role::TiedEmbedding)) => format!("{}, as embedding and as head", entry.label()),
        (true, _) => entry.label(),
        _ => {
            let kept = entry.projection.as_ref().map_or_else(String::new, |kept| format!(", {}", kept.label()));
            format!("{}{}{kept}", entry.label(), blocks_suffix(entry.placement))
        }
    }
}

use Align::{Left, Right};
const ALIGN: [Align; 9] = [Left, Left, Right, Right, Right, Left, Left, Left, Left];
const HEADER: [&str; 9] = ["role", "optimizer", "tensors", "params", "share", "lr", "wd", "scale", "state"];

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schedule = (!self.schedules().is_empty()).then_some("schedule");
        let mut rows = vec![HEADER.into_iter().chain(schedule).map(String::from).collect()];
        rows.extend(self.lines().iter().map(|line| self.cells(line)));
        f.write_str(&table(rows, &ALIGN))?;
        if let Some(momentum) = self.momentum() {
            let tensors = self.entries().iter().filter(|entry| entry.momentum.is_some()).count();
            writeln!(f, "momentum of {tensors} tensors {momentum}")?;
        }
        let total = self.entries().len();
        let (all, frozen) = (self.parameters(), self.frozen());
        write!(f, "covered {total} of {total} tensors, each once; {} parameters", thousands(all as u64))?;
        if frozen > 0 {
            let (trained, frozen) = (thousands((all - frozen) as u64), thousands(frozen as u64));
            write!(f, ", of which {trained} are trained and {frozen} frozen")?;
        }
        match self.wrapper() {
            Some(wrapper) => write!(f, "\naround the steps {wrapper}"),
            None => Ok(()),
        }
    }
}
