//! Numbers and tables as text.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use num_format::{Locale, ToFormattedString};

/// A whole number with commas as thousands separators.
///
/// ```
/// assert_eq!(polaron_common::thousands(1_234_567), "1,234,567");
/// ```
pub fn thousands(number: u64) -> String {
    number.to_formatted_string(&Locale::en)
}

/// The side of a column at which the text of its cells is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// For words.
    Left,
    /// For numbers.
    Right,
}

/// Rows as text: every column is as wide as its widest cell, with two spaces between columns and a line break after every
/// row. Columns without an alignment are aligned left.
///
/// ```
/// use polaron_common::{Align, table};
///
/// let rows = [["kind", "count"], ["muon", "16"], ["row_norm", "1"]];
/// assert_eq!(table(rows, &[Align::Left, Align::Right]), "kind      count\nmuon         16\nrow_norm      1\n");
/// ```
pub fn table<R, C>(rows: impl IntoIterator<Item = R>, align: &[Align]) -> String
where
    R: IntoIterator<Item = C>,
    C: Into<String>,
{
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.add_rows(rows.into_iter().map(|row| row.into_iter().map(Into::into).collect::<Vec<String>>()));
    if table.is_empty() {
        return String::new();
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        let side = match align.get(index) {
            Some(Align::Right) => CellAlignment::Right,
            _ => CellAlignment::Left,
        };
        column.set_cell_alignment(side);
    }
    table.trim_fmt() + "\n"
}

/// Rows as comma-separated values (RFC 4180), with a line break after every row.
///
/// ```
/// assert_eq!(polaron_common::csv([["a", "b,c"], ["d\"", ""]]), "a,\"b,c\"\n\"d\"\"\",\n");
/// ```
pub fn csv<R, C>(rows: impl IntoIterator<Item = R>) -> String
where
    R: IntoIterator<Item = C>,
    C: AsRef<str>,
{
    let quoted = |cell: C| match cell.as_ref() {
        cell if cell.contains([',', '"', '\n', '\r']) => format!("\"{}\"", cell.replace('"', "\"\"")),
        cell => cell.to_owned(),
    };
    let line = |row: R| row.into_iter().map(quoted).collect::<Vec<_>>().join(",") + "\n";
    rows.into_iter().map(line).collect()
}

/// The rows and a head as a Markdown table.
///
/// ```
/// use polaron_common::{Align, markdown_table};
///
/// let text = markdown_table(["kind", "count"], [["muon", "16"]], &[Align::Left, Align::Right]);
/// assert_eq!(text, "| kind | count |\n| --- | ---: |\n| muon | 16 |\n");
/// ```
pub fn markdown_table<H, R, C>(head: H, rows: impl IntoIterator<Item = R>, align: &[Align]) -> String
where
    H: IntoIterator<Item = C>,
    R: IntoIterator<Item = C>,
    C: Into<String>,
{
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let escaped = |cell: C| cell.into().replace('|', "\\|");
    let head: Vec<String> = head.into_iter().map(escaped).collect();
    let rule = (0..head.len()).map(|index| match align.get(index) {
        Some(Align::Right) => "---:".to_owned(),
        _ => "---".to_owned(),
    });
    let rule = line(rule.collect());
    let rows = rows.into_iter().map(|row| line(row.into_iter().map(escaped).collect()));
    [line(head), rule].into_iter().chain(rows).collect()
}
