//! Tables of what was measured.

/// Prints minimum, median and maximum; gives the median.
pub(crate) fn print(what: &str, unit: &str, mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (values.first(), values.last()) else { return f64::NAN };
    let median = values[values.len() / 2];
    println!("{what:<24} {least:>9.2} {median:>9.2} {most:>9.2}  {unit}");
    median
}

/// Begins a table.
pub(crate) fn heading(what: &str) {
    println!("\n{what:<24} {:>9} {:>9} {:>9}", "min", "median", "max");
}
