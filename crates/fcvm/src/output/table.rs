//! Tables and times for people.

use jiff::Timestamp;

/// Lines of aligned columns under a heading. Text from elsewhere loses what it
/// could do to a terminal, line breaks included.
#[must_use]
pub fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let clean = |cell: &str| super::sanitize(cell).replace(['\n', '\t'], " ");
    let mut lines = vec![heading.map(ToOwned::to_owned)];
    lines.extend(rows.iter().map(|row| row.each_ref().map(|cell| clean(cell))));
    let widths: [usize; N] = std::array::from_fn(|column| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
    });
    let lines = lines.iter().map(|line| {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// How long ago something was, in one unit: `3 hours ago`.
#[must_use]
pub fn ago(now: Timestamp, then: Timestamp) -> String {
    const UNITS: [(i64, &str); 6] = [
        (365 * 86400, "year"),
        (30 * 86400, "month"),
        (7 * 86400, "week"),
        (86400, "day"),
        (3600, "hour"),
        (60, "minute"),
    ];
    let seconds = now.as_second().saturating_sub(then.as_second());
    let Some((length, unit)) = UNITS.into_iter().find(|(length, _)| seconds >= *length) else {
        return "just now".into();
    };
    let count = seconds / length;
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_clean() {
        let rows = [["a\x1b[2J".to_owned(), "b".into()], ["long name here".into(), "c\nd".into()]];
        let expected = "NAME             X\na\\u{1b}[2J       b\nlong name here   c d";
        assert_eq!(table(["NAME", "X"], &rows), expected);
    }

    #[test]
    fn times_are_told_in_one_unit() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (seconds, text) in [
            (-5, "just now"),
            (59, "just now"),
            (60, "1 minute ago"),
            (7200, "2 hours ago"),
            (86400 * 13, "1 week ago"),
            (86400 * 800, "2 years ago"),
        ] {
            assert_eq!(ago(at(seconds), at(0)), text);
        }
    }
}
