//! Tables of percentiles.

/// Prints a line of a table: the shares of values that are at most so; gives the median.
pub(crate) fn print(what: &str, mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let at = |percent: usize| values[(values.len() * percent / 100).min(last)];
    println!("{what:<24} {:>9.2} {:>9.2} {:>9.2} {:>9.2}  ms", values[0], at(50), at(90), values[last]);
    at(50)
}

/// Begins a table of them.
pub(crate) fn heading(what: &str) {
    println!("\n{what:<24} {:>9} {:>9} {:>9} {:>9}", "min", "p50", "p90", "max");
}
